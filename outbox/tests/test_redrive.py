"""Dead letters are tried again in order, once, and reported when nothing helps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import OperationalError
from structlog.testing import capture_logs

from devtools.testing.advice import advised_with_arguments
from outbox import conf
from outbox.conf import REDRIVE
from outbox.dead_letters import due, redrive
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters.letter import Letter
from outbox.declaration import Route
from outbox.handlers import pause
from outbox.inbox import receipts
from outbox.inbox.chunk import Chunk
from outbox.models import DeadLetter, InboxReceipt, OutboxEvent
from outbox.tests.letters import (
    HANDLER,
    ROUTE,
    TOPIC,
    Applied,
    chunk,
    create_positions,
    event,
    make_due,
    outcomes,
    position,
    redrive_copy,
    redrive_due,
    run,
    states,
)


@pytest.mark.parametrize(("tries", "nominal"), [(1, 1), (2, 2), (3, 4), (9, 4)])
def test_a_retry_comes_after_1_2_4_seconds_and_not_with_all_others(
    tries: int, nominal: float
) -> None:
    waits = {letter_rows.backoff(ROUTE, tries) / nominal for _ in range(200)}
    assert 0.8 <= min(waits) < 0.95
    assert 1.05 < max(waits) <= 1.2


@pytest.fixture
def applied(db: None) -> Applied:
    """A key whose head failed, with two followers."""
    create_positions()
    applied = Applied("1")
    run(applied, chunk([event("1"), event("2"), event("3")]))
    assert states() == ["retrying", "parked", "parked"]
    return applied


@pytest.mark.usefixtures("applied")
class TestAHead:
    def test_is_not_tried_before_it_is_due(self, applied: Applied) -> None:
        applied.poison.clear()
        assert redrive_due(applied) == 0

    def test_goes_first_and_its_followers_after_it(self, applied: Applied) -> None:
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == 3
        assert applied.payloads == ["1", "2", "3"]
        assert (states(), outcomes()) == (["applied"] * 3, [3, 0, 0])
        assert not position().letters_open
        assert run(applied, chunk([event("4")], first=13)) == 1

    def test_waits_longer_each_time_and_is_dead_after_its_tries(self, applied: Applied) -> None:
        waits = []
        for _ in ROUTE.retries:
            make_due()
            redrive_due(applied)
            letter = DeadLetter.objects.earliest("id")
            if letter.next_attempt_at and letter.failed_at:
                waits.append((letter.next_attempt_at - letter.failed_at).total_seconds())
        assert states() == ["dead", "parked", "parked"]
        assert DeadLetter.objects.earliest("id").attempts == ROUTE.tries == 4
        assert [round(wait / nominal) for wait, nominal in zip(waits, (2, 4), strict=True)] == [
            1,
            1,
        ]
        make_due()
        assert redrive_due(applied) == 0
        assert applied.payloads == []

    def test_that_is_dead_is_looked_at_and_tried_again_by_what_the_log_advises(
        self, applied: Applied, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with capture_logs() as logs:
            for _ in range(ROUTE.tries):
                make_due()
                redrive_due(applied)
        [advice] = [line["advice"] for line in logs if line["event"] == "event_dead"]
        inspect, replay, discard = advised_with_arguments(advice)
        call_command(*inspect)
        assert json.loads(capsys.readouterr().out)["payload"] == "1"
        call_command(*replay)
        assert states("1") == ["retrying"]
        call_command(*discard)
        assert states("1") == ["discarded"]

    def test_that_is_dead_is_told_on_the_dead_letter_topic(self, applied: Applied) -> None:
        for _ in ROUTE.retries:
            make_due()
            redrive_due(applied)
        announced = OutboxEvent.objects.get(topic=ROUTE.topic.dlq)
        letter = DeadLetter.objects.earliest("id")
        assert (announced.payload, announced.key, announced.type) == ("1", "k", "DEAD_LETTER")
        assert announced.headers is not None
        assert announced.headers.pop("failed-at")
        assert announced.headers == {
            "original-event-id": str(letter.event_id),
            "original-topic": TOPIC,
            "original-partition": "0",
            "original-offset": "10",
            "handler": HANDLER,
            "error": "ValueError: poison",
            "attempts": "4",
            "replay-count": "0",
        }

    @pytest.mark.parametrize("guarded", [True, False])
    def test_closed_before_its_redrive_has_the_lock_is_left_alone(
        self, applied: Applied, monkeypatch: pytest.MonkeyPatch, guarded: bool
    ) -> None:
        """A replay closes the letters and deletes the receipts; the log brings the event again."""

        def lock_after_a_replay(letter: Letter) -> None:
            DeadLetter.objects.update(state=DeadLetter.State.DISCARDED)
            InboxReceipt.objects.all().delete()

        if not guarded:
            monkeypatch.setattr(redrive, "_still_open", list)
        monkeypatch.setattr(redrive, "lock_place", lock_after_a_replay)
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == (0 if guarded else 1)
        assert applied.payloads == ([] if guarded else ["1"])

    def test_is_leased_so_that_two_beats_send_it_once(self) -> None:
        make_due()
        assert len(due.claim_due(ROUTE)) == 1
        assert due.claim_due(ROUTE) == []

    def test_is_tried_once_by_the_copies_of_all_its_leases(self, applied: Applied) -> None:
        """Workers were away: each lease that ran out has left a task on the queue."""
        copies = []
        for _ in range(5):
            make_due()
            copies.append(due.claim_due(ROUTE))
        for copy in copies:
            redrive_copy(applied, copy)
        letter = DeadLetter.objects.earliest("id")
        assert (letter.attempts, letter.state) == (2, DeadLetter.State.RETRYING)
        make_due()
        applied.poison.clear()
        assert redrive_due(applied) == 3

    def test_left_when_time_is_up_is_due_at_once(
        self, applied: Applied, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        applied.poison.clear()
        make_due()
        monkeypatch.setattr(redrive, "BRIDGE", replace(conf.BRIDGE, effect_timeout=0.0))
        assert redrive_due(applied) == 0
        assert due.handlers_due() == [HANDLER]
        begun = [letter.attempts for letter in DeadLetter.objects.order_by("id")]
        assert begun == [1, 0, 0]

    def test_keeps_its_tries_when_the_error_passes(self, applied: Applied) -> None:
        applied.error = OperationalError("away")
        for _ in range(10):
            make_due()
            redrive_due(applied)
        assert (states()[0], DeadLetter.objects.earliest("id").attempts) == ("retrying", 1)

    def test_is_not_tried_while_the_handler_is_paused(self, applied: Applied) -> None:
        applied.poison.clear()
        make_due()
        pause.pause_handler(HANDLER, reason="a look", by="me")
        assert due.handlers_due() == []
        assert redrive_due(applied) == 0
        assert DeadLetter.objects.earliest("id").attempts == 1
        pause.resume_handler(HANDLER, by="me")
        make_due()
        assert due.handlers_due() == [HANDLER]
        assert redrive_due(applied) == 3


class TestAFollower:
    def test_that_fails_becomes_the_head(self, applied: Applied) -> None:
        applied.poison = {"2"}
        make_due()
        assert redrive_due(applied) == 1
        assert (applied.payloads, states()) == (["1"], ["applied", "retrying", "parked"])
        assert position().letters_open
        run(applied, chunk([event("4")], first=13))
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == 3
        assert applied.payloads == ["1", "2", "3", "4"]

    def test_in_a_long_line_is_found_behind_many(self, applied: Applied) -> None:
        run(applied, chunk([event(str(n)) for n in range(4, 300)], first=13))
        applied.poison = {"250"}
        make_due()
        redrive_due(applied)
        assert applied.payloads == [str(number) for number in range(1, 250)]
        assert (states("250"), states("251")) == (["retrying"], ["parked"])
        applied.poison.clear()
        make_due()
        redrive_due(applied)
        assert applied.payloads == [str(number) for number in range(1, 300)]


class TestTheReceipt:
    def twice(self, applied: Applied) -> None:
        """Two copies of one redrive: the second has read its letters before the first is through."""
        applied.poison.clear()
        make_due()
        [claim] = due.claim_due(ROUTE)
        late = redrive._begin(ROUTE, claim, 1)
        make_due()
        redrive_due(applied)
        redrive.apply_letters(ROUTE, late, applied)

    def test_lets_only_one_of_two_copies_in(self, applied: Applied) -> None:
        self.twice(applied)
        assert applied.payloads == ["1", "2", "3"]

    def test_unasked_lets_both_in(self, applied: Applied, monkeypatch: pytest.MonkeyPatch) -> None:
        """The guard removed, and the look at the letter's state, which would notice it too."""

        def believe(handler: str, event_ids: Iterable[UUID], outcome: int) -> set[UUID]:
            return set(event_ids)

        monkeypatch.setattr(receipts, "settle_receipts", believe)
        monkeypatch.setattr(redrive, "_still_open", list)
        self.twice(applied)
        assert applied.payloads == ["1", "2", "3", "1"]

    def test_that_was_purged_is_written_again(self, applied: Applied) -> None:
        InboxReceipt.objects.all().delete()
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == 3
        assert outcomes() == [3, 0, 0]

    def test_that_says_discarded_keeps_the_effect_out(self, applied: Applied) -> None:
        InboxReceipt.objects.update(outcome=InboxReceipt.Outcome.DISCARDED)
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == 0
        assert applied.payloads == []


class TestMessagesWithoutAKey:
    """Of others: each partition is a sequence of its own."""

    def keyless(self, payload: str, partition: int, first: int = 10) -> Chunk:
        return chunk([event(payload, key="")], first=first, partition=partition)

    def test_wait_for_none_in_another_partition(self, db: None) -> None:
        create_positions()
        applied = Applied("0a", "1a")
        run(applied, self.keyless("0a", 0))
        assert run(applied, self.keyless("1", 1)) == 1
        run(applied, self.keyless("1a", 1, first=11))
        run(applied, self.keyless("0b", 0, first=11), self.keyless("1b", 1, first=12))
        assert states() == ["retrying", "retrying", "parked", "parked"]
        DeadLetter.objects.filter(payload="1a").update(state=DeadLetter.State.DEAD)
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == 2
        assert applied.payloads == ["1", "0a", "0b"]
        assert states("1a", "1b") == ["dead", "parked"]
        assert (position(0).letters_open, position(1).letters_open) == (False, True)


class TestAHandlerThatIsOrderedNoMore:
    @pytest.fixture(autouse=True)
    def unordered(self, applied: Applied, monkeypatch: pytest.MonkeyPatch) -> None:
        route = replace(ROUTE, ordered=False)
        monkeypatch.setattr(conf, "route_named", lambda _: route)

    def test_gets_what_was_parked_while_it_was(self, applied: Applied) -> None:
        applied.poison.clear()
        make_due()
        assert redrive_due(applied) == 3
        assert states() == ["applied"] * 3
        assert not position().letters_open

    def test_does_not_try_another_failed_one_before_its_time(self, applied: Applied) -> None:
        DeadLetter.objects.filter(payload__in="23").update(
            state=DeadLetter.State.RETRYING, next_attempt_at="2999-01-01T00:00:00Z"
        )
        applied.poison.clear()
        DeadLetter.objects.filter(payload="1").update(next_attempt_at="2026-01-01T00:00:00Z")
        assert redrive_due(applied) == 1


def test_what_goes_wrong_for_one_handler_keeps_nothing_from_the_next(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed: list[str] = []

    def claim_due(route: Route) -> list[Any]:
        claimed.append(route.handler)
        if len(claimed) == 1:
            raise ValueError("a bug")
        return []

    monkeypatch.setattr(due, "claim_due", claim_due)
    DeadLetter.objects.filter(payload="2").update(
        handler=next(each.handler for each in conf.routes() if each.handler != HANDLER),
        state=DeadLetter.State.RETRYING,
    )
    make_due()
    assert due.send_due() == 0
    assert len(claimed) == 2


def test_the_lease_outlasts_the_task() -> None:
    assert conf.BRIDGE.task_time_limit < REDRIVE.lease
