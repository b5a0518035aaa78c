"""The checker of notifications against hand-made histories: a clean one passes, each kind of damage is
seen, and what explains it is no damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from devtools.chaos.notifications.checker import UNKNOWN_ANSWER, judge
from devtools.chaos.notifications.history import (
    AcceptedSend,
    Attempted,
    End,
    Lost,
    SeenChange,
    SendHistory,
)
from devtools.provider.server import Arrival

DELIVERED = End(status="delivered", allowed=5)


def arrival(key: str, at: float, status: int = 200, **told: Any) -> Arrival:
    answered_at = at + 0.1 if status > 0 else 0.0
    return Arrival(
        at=at,
        path="/send",
        key=key,
        headers={},
        channel="sms",
        status=status,
        **{"answered_at": answered_at, **told},
    )


def accepted(at: float = 0.0, priority: str = "high", **given: Any) -> AcceptedSend:
    return AcceptedSend(channel="sms", priority=priority, at=at, **given)


def changes(*told: tuple[str, str]) -> list[SeenChange]:
    return [SeenChange(seq, id_, status) for seq, (id_, status) in enumerate(told, start=1)]


SENT = (("a", "processing"), ("a", "delivered"))
CLEAN = SendHistory(
    accepted={"a": accepted(), "b": accepted(), "c": accepted(priority="low", due=4.0)},
    arrivals=[arrival("a", 1.0), arrival("c", 4.5)],
    cancelled={"b": 0.5},
    ends={"a": DELIVERED, "b": End(status="cancelled"), "c": DELIVERED},
    changes=changes(
        *SENT, ("b", "cancelled"), ("c", "pending"), ("c", "processing"), ("c", "delivered")
    ),
)


def damaged(history: SendHistory) -> set[str]:
    return {verdict.invariant for verdict in judge(history) if not verdict.ok}


def one(
    *arrivals: Arrival, end: End = DELIVERED, attempts: Sequence[Attempted] = (), **more: Any
) -> SendHistory:
    """A notification `a`, sent like this, whose stream says what its end says."""
    way = [("a", "cancelled")] if end.status == "cancelled" else [SENT[0], ("a", end.status)]
    given = {
        "accepted": {"a": accepted()},
        "arrivals": arrivals,
        "ends": {"a": end},
        "changes": changes(*way),
        **more,
    }
    if attempts:
        given["attempts"] = {"a": attempts}
    return SendHistory(**given)


def test_a_clean_history() -> None:
    assert damaged(CLEAN) == set()


class TestAcceptedIsSent:
    @pytest.mark.parametrize(
        ("end", "arrivals"),
        [
            (DELIVERED, ()),
            (DELIVERED, (arrival("a", 1.0, 503),)),
            (End(status="failed", allowed=0), ()),
            (End(status="failed", error="The provider answered 500."), (arrival("a", 1.0),)),
        ],
    )
    def test_its_end_is_not_what_the_provider_saw(
        self, end: End, arrivals: Sequence[Arrival]
    ) -> None:
        assert "N1" in damaged(one(*arrivals, end=end))

    def test_no_end(self) -> None:
        assert "N1" in damaged(one(end=End(status="processing")))

    def test_a_provider_that_was_killed_may_have_taken_it(self) -> None:
        assert damaged(one(arrival("a", 1.0, UNKNOWN_ANSWER))) == set()


class TestOnce:
    AGAIN = (arrival("a", 1.0), arrival("a", 20.0))
    LOST = Lost(begin=1.05, end=18.0)

    def test_again_though_it_was_taken(self) -> None:
        assert damaged(one(*self.AGAIN)) == {"N2"}

    def test_again_because_its_sender_was_killed_meanwhile(self) -> None:
        assert damaged(one(*self.AGAIN, lost=[self.LOST])) == set()

    def test_a_sender_that_stood_still_before_it_began_explains_nothing(self) -> None:
        assert damaged(one(*self.AGAIN, lost=[replace(self.LOST, in_sends=False)])) == {"N2"}

    def test_nor_one_that_was_lost_before(self) -> None:
        assert damaged(one(*self.AGAIN, lost=[replace(self.LOST, begin=-20.0)])) == {"N2"}

    def test_again_because_the_answer_came_too_late(self) -> None:
        slow = arrival("a", 1.0, answered_at=3.5)
        assert damaged(one(slow, arrival("a", 6.0))) == set()

    def test_twice_at_once(self) -> None:
        assert "N2" in damaged(one(arrival("a", 1.0, answered_at=5.0), arrival("a", 2.0)))


class TestCancel:
    CANCELLED = End(status="cancelled")

    def test_begun_after_it(self) -> None:
        begun = one(arrival("a", 2.0), end=self.CANCELLED, cancelled={"a": 1.0})
        assert damaged(begun) == {"N3"}

    def test_begun_by_a_sender_that_was_frozen_over_it(self) -> None:
        frozen = Lost(begin=0.5, end=1.5)
        begun = one(arrival("a", 2.0), end=self.CANCELLED, cancelled={"a": 1.0}, lost=[frozen])
        assert damaged(begun) == set()

    def test_taken_before_it(self) -> None:
        taken = one(arrival("a", 0.5), end=self.CANCELLED, cancelled={"a": 1.0})
        assert damaged(taken) == {"N3"}

    def test_answered_and_not_so(self) -> None:
        assert "N5" in damaged(one(arrival("a", 0.5), cancelled={"a": 1.0}))


class TestAttempts:
    FAILED = Attempted(at=1.0, outcome="failed")
    UNKNOWN = Attempted(at=1.0, outcome="unknown")

    def test_an_attempt_of_one_who_was_asked_to_wait(self) -> None:
        asked = arrival("a", 1.0, 429, retry_after="1")
        used = End(status="delivered", used=1, allowed=5)
        tried = [self.FAILED, Attempted(at=4.0, outcome="delivered")]
        assert damaged(one(asked, arrival("a", 4.0), end=used, attempts=tried)) == {"N4"}

    @pytest.mark.parametrize("used", [0, 4, 6])
    def test_failed_with_another_number_than_allowed(self, used: int) -> None:
        end = End(status="failed", error="The provider answered 500.", used=used, allowed=5)
        assert damaged(one(end=end, attempts=[self.FAILED] * 6)) == {"N4"}

    def test_failed_at_once_where_it_was_refused(self) -> None:
        end = End(status="failed", error="The provider answered 400.", used=1, allowed=5)
        tried = [Attempted(at=1.0, outcome="refused")]
        assert damaged(one(arrival("a", 1.0, 400), end=end, attempts=tried)) == set()

    def test_unknown_though_nobody_was_lost(self) -> None:
        tried = [self.UNKNOWN, Attempted(at=18.0, outcome="delivered")]
        end = End(status="delivered", used=1, allowed=5)
        sent = one(arrival("a", 18.0), end=end, attempts=tried, away=[(0.0, 20.0)])
        assert damaged(sent) == {"N4"}
        assert damaged(replace(sent, lost=[Lost(begin=1.5, end=1.6)])) == set()

    def test_claimed_and_not_begun_though_nobody_was_lost(self) -> None:
        tried = [
            Attempted(at=1.0, outcome="held", begun=False),
            Attempted(at=18.0, outcome="delivered"),
        ]
        sent = one(arrival("a", 18.0), attempts=tried, away=[(0.0, 20.0)])
        assert damaged(sent) == {"N4"}
        assert damaged(replace(sent, lost=[Lost(begin=1.5, end=1.6)])) == set()


class TestEnds:
    def test_one_that_is_left(self) -> None:
        left = replace(CLEAN, changes=[*CLEAN.changes, SeenChange(7, "a", "pending")])
        assert "N5" in damaged(left)

    def test_one_that_was_told_and_is_not_so(self) -> None:
        assert damaged(replace(CLEAN, shown={"a": "failed"})) == {"N5"}


class TestStream:
    @pytest.mark.parametrize("missing", range(6))
    def test_any_change_that_is_missing(self, missing: int) -> None:
        left = [each for place, each in enumerate(CLEAN.changes) if place != missing]
        assert damaged(replace(CLEAN, changes=left)) == {"N10"}

    def test_one_that_comes_twice(self) -> None:
        twice = [*CLEAN.changes[:1], *CLEAN.changes]
        assert "N10" in damaged(replace(CLEAN, changes=twice))

    def test_a_gap(self) -> None:
        assert damaged(replace(CLEAN, gaps=1)) == {"N10"}


def many(count: int, *, every: float, priority: str = "low", first: float = 0.0) -> SendHistory:
    """Accepted at once, sent one after the other."""
    ids = [f"{priority}{number}" for number in range(count)]
    return SendHistory(
        accepted={id_: accepted(first, priority) for id_ in ids},
        arrivals=[arrival(id_, first + 0.1 + every * n) for n, id_ in enumerate(ids)],
    )


def together(*histories: SendHistory) -> SendHistory:
    found = SendHistory()
    for each in histories:
        found = replace(
            found,
            accepted={**found.accepted, **each.accepted},
            arrivals=[*found.arrivals, *each.arrivals],
        )
    ids = list(found.accepted)
    way = [(id_, status) for id_ in ids for status in ("processing", "delivered")]
    return replace(found, ends=dict.fromkeys(ids, DELIVERED), changes=changes(*way))


class TestTime:
    def test_the_limit(self) -> None:
        assert damaged(together(many(1000, every=0.01))) == set()
        assert damaged(together(many(1000, every=0.005))) == {"N7"}

    def test_a_high_one_behind_low_ones(self) -> None:
        low = many(1000, every=0.02)
        assert damaged(together(low, many(5, every=0.02, priority="high", first=2.0))) == set()
        late = together(low, many(1, every=0, priority="high", first=2.0))
        late.arrivals[-1].at = 18.0
        assert damaged(replace(late, limit=1000)) == {"N9"}

    def test_a_pause_without_a_reason(self) -> None:
        going, rest = many(30, every=0.1), many(1, every=0, priority="normal", first=4.0)
        paused = together(going, rest)
        paused.arrivals[-1].at = 30.0
        paused.arrivals[-1].answered_at = 30.1
        assert damaged(paused) == {"N8"}
        assert damaged(replace(paused, away=[(10.0, 12.0)])) == set()
        for each in paused.arrivals[10:30]:
            each.status = 503  # twenty failures: the breaker is open
        assert "N8" not in damaged(paused)

    def test_one_that_asked_to_wait_and_was_not_waited_for(self) -> None:
        asked = arrival("a", 1.0, 429, retry_after="10")
        assert damaged(one(asked, arrival("a", 11.5))) == set()
        assert damaged(one(asked, arrival("a", 6.0))) == {"N6"}

    def test_one_that_is_sent_before_its_time(self) -> None:
        assert damaged(one(arrival("a", 1.0), accepted={"a": accepted(due=1.5)})) >= {"N11"}

    def test_one_that_is_pending_long_after_its_time(self) -> None:
        late = [replace(each, at=30.0) for each in CLEAN.changes]
        assert damaged(replace(CLEAN, changes=late)) == {"N11"}
