"""The checker against hand-made histories: a clean one passes, and each kind of damage is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from devtools.chaos.checker import Verdict, judge
from devtools.chaos.history import (
    Applied,
    Fault,
    FeedsHistory,
    History,
    Logged,
    Stored,
    TableHealth,
    WrittenEvent,
)
from devtools.chaos.order_life import Answered, LifeStep, OrderLives
from devtools.chaos.outcome import WriteOutcome

TOPIC = "probe-events"
EVENTS = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)]


def row(number: int, key: str, seq: int) -> Stored:
    return Stored(
        id=number,
        event_id=f"{key}{seq}",
        topic=TOPIC,
        key=key,
        created_at=100.0 + number,
        published_at=100.5 + number,
        seq=seq,
    )


ROWS = tuple(row(number, key, seq) for number, (key, seq) in enumerate(EVENTS, start=1))
ORDER = Stored(9, "o1", "order-events", "order-1", 100.0, 100.1)
WRITTEN = tuple(WrittenEvent(r.event_id, r.key, r.seq or 0, WriteOutcome.COMMITTED) for r in ROWS)


def log_of(*event_ids: str) -> tuple[Logged, ...]:
    return tuple(Logged(i, TOPIC, 0, offset) for offset, i in enumerate(event_ids))


def entries_of(*event_ids: str) -> tuple[Applied, ...]:
    return tuple(Applied(i, i[0], int(i[1:])) for i in event_ids)


IDS = tuple(r.event_id for r in ROWS)
CLEAN = History(
    written=(*WRITTEN, WrittenEvent("a9", "a", 4, WriteOutcome.ROLLED_BACK)),
    stored=(*ROWS, ORDER),
    logged=(*log_of(*IDS), Logged("o1", "order-events", 3, 0)),
    applied=entries_of(*IDS),
    receipts=(*IDS, "o1"),
    orders=OrderLives(
        answered=(Answered("order-1", "CREATED", WriteOutcome.COMMITTED),),
        steps=(LifeStep(1, "order-1", None, "CREATED", ("o1",)),),
        statuses={"order-1": "CREATED"},
    ),
    tables={"outbox_lane": TableHealth(64, 0, 0), "event_outbox": TableHealth(6, 6, 6)},
)


def verdicts(history: History) -> Mapping[str, Verdict]:
    return {verdict.invariant: verdict for verdict in judge(history)}


def damaged(history: History) -> dict[str, int]:
    return {name: found.damage for name, found in verdicts(history).items() if not found.ok}


def test_a_clean_history_is_clean() -> None:
    assert damaged(CLEAN) == {}
    assert list(verdicts(CLEAN)) == [f"I{number}" for number in range(1, 13)]


class TestCommittedIsDelivered:
    def test_an_effect_is_missing(self) -> None:
        assert damaged(replace(CLEAN, applied=entries_of("a1", "b1", "a2", "a3"))) == {"I1": 1}

    def test_a_message_is_missing_in_kafka(self) -> None:
        history = replace(CLEAN, logged=CLEAN.logged[1:])
        assert damaged(history) == {"I1": 1}
        assert damaged(replace(history, log_complete=False)) == {}

    def test_only_the_probes_log_may_be_lost(self) -> None:
        history = replace(CLEAN, logged=CLEAN.logged[:-1], log_complete=False)
        assert damaged(history) == {"I1": 1}

    def test_what_nobody_listens_to_is_only_in_kafka(self) -> None:
        rows = (*ROWS, replace(ORDER, heard=False))
        history = replace(CLEAN, stored=rows, receipts=IDS)
        assert damaged(history) == {}
        assert damaged(replace(history, logged=CLEAN.logged[:-1])) == {"I1": 1}

    def test_a_promised_row_is_gone(self) -> None:
        gone = WrittenEvent("c1", "c", 1, WriteOutcome.COMMITTED)
        assert damaged(replace(CLEAN, written=(*CLEAN.written, gone))) == {"I1": 1}

    def test_a_promised_order_is_gone(self) -> None:
        none = replace(CLEAN.orders, steps=(), statuses={})
        history = replace(CLEAN, orders=none, stored=ROWS, logged=CLEAN.logged[:-1])
        assert damaged(history) == {"I1": 1}

    def test_an_event_with_a_receipt_has_no_effect(self) -> None:
        here = replace(CLEAN, effects={"order-events": frozenset({"o1"})})
        assert damaged(here) == {}
        assert damaged(replace(CLEAN, effects={"order-events": frozenset()})) == {"I1": 1}

    def test_an_event_without_a_log_has_no_receipt(self) -> None:
        assert damaged(replace(CLEAN, receipts=IDS)) == {"I1": 1}

    def test_unknown_is_either(self) -> None:
        unknown = WrittenEvent("c1", "c", 1, WriteOutcome.UNKNOWN)
        absent = replace(CLEAN, written=(*CLEAN.written, unknown))
        assert damaged(absent) == {}
        present = replace(
            absent,
            stored=(*CLEAN.stored, row(10, "c", 1)),
            logged=(*CLEAN.logged, Logged("c1", TOPIC, 1, 0)),
            applied=(*CLEAN.applied, *entries_of("c1")),
            receipts=(*CLEAN.receipts, "c1"),
        )
        assert damaged(present) == {}
        assert damaged(replace(present, applied=CLEAN.applied)) == {"I1": 1}

    def test_a_parked_event_waits(self) -> None:
        waiting = replace(
            CLEAN, applied=entries_of("a1", "b1", "a2", "b2"), parked=frozenset({"a3"})
        )
        assert damaged(waiting) == {}


class TestLostOnPurpose:
    """The database was set back: what was promised in between is lost, and nothing else."""

    GONE = WrittenEvent("c1", "c", 1, WriteOutcome.COMMITTED, at=150.0)
    LOST = replace(CLEAN, written=(*CLEAN.written, GONE), lost_between=(140.0, 160.0))

    def test_in_between(self) -> None:
        assert damaged(self.LOST) == {}
        assert verdicts(self.LOST)["I1"].figure == "6, 1 lost"

    def test_its_number_drawn_again_and_applied_from_the_log(self) -> None:
        again = WrittenEvent("c2", "c", 1, WriteOutcome.COMMITTED, at=170.0)
        history = replace(
            self.LOST,
            written=(*self.LOST.written, again),
            stored=(*CLEAN.stored, replace(row(10, "c", 1), event_id="c2")),
            logged=(*CLEAN.logged, Logged("c1", TOPIC, 1, 0), Logged("c2", TOPIC, 1, 1)),
            applied=(*CLEAN.applied, *entries_of("c1"), Applied("c2", "c", 1)),
            receipts=(*CLEAN.receipts, "c2"),
        )
        assert damaged(history) == {}

    @pytest.mark.parametrize("at", [139.0, 161.0])
    def test_before_and_after(self, at: float) -> None:
        written = (*CLEAN.written, replace(self.GONE, at=at))
        assert damaged(replace(self.LOST, written=written)) == {"I1": 1}

    @pytest.mark.parametrize(("at", "damage"), [(150.0, {}), (161.0, {"I1": 1})])
    def test_a_promised_change(self, at: float, damage: dict[str, int]) -> None:
        paid = Answered("order-1", "PAID", WriteOutcome.COMMITTED, at)
        lives = replace(CLEAN.orders, answered=(*CLEAN.orders.answered, paid))
        assert damaged(replace(self.LOST, orders=lives)) == damage


class TestRolledBackIsNever:
    @pytest.mark.parametrize("outcome", [WriteOutcome.ROLLED_BACK, WriteOutcome.NOT_STORED])
    def test_it_exists_somewhere(self, outcome: WriteOutcome) -> None:
        written = (*WRITTEN, WrittenEvent("c1", "c", 1, outcome))
        in_kafka = (*CLEAN.logged, Logged("c1", TOPIC, 1, 0))
        assert damaged(replace(CLEAN, written=written, logged=in_kafka)) == {"I2": 1}
        assert "I2" in damaged(replace(CLEAN, written=written, stored=(*ROWS, row(10, "c", 1))))
        applied = (*CLEAN.applied, *entries_of("c1"))
        assert damaged(
            replace(CLEAN, written=written, applied=applied, receipts=(*CLEAN.receipts, "c1"))
        ) == {"I2": 1}

    def test_an_effect_came_out_of_nowhere(self) -> None:
        applied = (*CLEAN.applied, *entries_of("c1"))
        history = replace(CLEAN, applied=applied, receipts=(*CLEAN.receipts, "c1"))
        assert damaged(history) == {"I2": 1}


class TestOrder:
    def test_an_effect_overtakes(self) -> None:
        overtaken = replace(CLEAN, applied=entries_of("a2", "a1", "b1", "a3", "b2"))
        assert damaged(overtaken) == {"I3": 1}

    def test_a_message_overtakes(self) -> None:
        logged = log_of("a1", "b1", "a3", "a2", "b2")
        assert damaged(replace(CLEAN, logged=(*logged, CLEAN.logged[-1]))) == {"I3": 1}

    def test_offsets_decide_not_the_order_of_reading(self) -> None:
        assert damaged(replace(CLEAN, logged=tuple(reversed(CLEAN.logged)))) == {}

    def test_the_changes_of_an_order_overtake(self) -> None:
        paid = replace(ORDER, id=10, event_id="o2")
        lives = replace(
            CLEAN.orders,
            steps=(*CLEAN.orders.steps, LifeStep(2, "order-1", "CREATED", "PAID", ("o2",))),
            statuses={"order-1": "PAID"},
        )
        logged = (
            *CLEAN.logged[:-1],
            Logged("o2", "order-events", 3, 0),
            Logged("o1", "order-events", 3, 1),
        )
        history = replace(
            CLEAN,
            stored=(*CLEAN.stored, paid),
            orders=lives,
            logged=logged,
            receipts=(*CLEAN.receipts, "o2"),
        )
        assert damaged(history) == {"I3": 1}

    def test_ids_do_not_follow_the_numbers(self) -> None:
        rows = (replace(ROWS[0], seq=2), ROWS[1], replace(ROWS[2], seq=1), *ROWS[3:])
        assert "I3" in damaged(replace(CLEAN, stored=(*rows, ORDER)))

    def test_a_late_repetition_is_not_a_violation(self) -> None:
        logged = (*CLEAN.logged, Logged("a1", TOPIC, 0, 5))
        assert damaged(replace(CLEAN, logged=logged, faults=(Fault("kill", 101, 101),))) == {}


class TestEffectsOnce:
    def test_twice(self) -> None:
        assert damaged(replace(CLEAN, applied=entries_of(*IDS, "b2"))) == {"I4": 1}

    def test_without_a_receipt(self) -> None:
        receipts = (*IDS[1:], "o1")
        assert damaged(replace(CLEAN, receipts=receipts)) == {"I4": 1}

    def test_figures(self) -> None:
        assert damaged(replace(CLEAN, figures_differ=3)) == {"I4": 1}


class TestDuplicatesInKafka:
    TWICE = (*CLEAN.logged, Logged("b2", TOPIC, 0, 5))

    def test_without_a_fault(self) -> None:
        assert damaged(replace(CLEAN, logged=self.TWICE)) == {"I5": 1}

    def test_of_an_event_that_was_on_its_way(self) -> None:
        killed = replace(CLEAN, logged=self.TWICE, faults=(Fault("kill", 105.2, 105.3),))
        assert damaged(killed) == {}
        assert verdicts(killed)["I5"].figure == "1"

    def test_of_a_fault_that_touches_no_drain(self) -> None:
        faults = (Fault("poison", 105.2, 105.3, repeats=False),)
        assert damaged(replace(CLEAN, logged=self.TWICE, faults=faults)) == {"I5": 1}

    @pytest.mark.parametrize("moment", [50.0, 200.0])
    def test_of_an_event_that_was_not(self, moment: float) -> None:
        faults = (Fault("kill", moment, moment),)
        assert damaged(replace(CLEAN, logged=self.TWICE, faults=faults)) == {"I5": 1}


class TestTheRest:
    def test_something_is_stuck(self) -> None:
        assert damaged(replace(CLEAN, unsettled=4)) == {"I6": 4}

    def test_a_zombie_changed_something(self) -> None:
        assert damaged(replace(CLEAN, zombies={"drain": ("x", "x"), "bridge": ("x", "y")})) == {
            "I7": 1
        }

    def test_poison_that_is_no_dead_letter_and_the_other_way_round(self) -> None:
        history = replace(CLEAN, poison=frozenset({"a1"}), dead_letters=frozenset({"b1"}))
        assert damaged(history) == {"I8": 2}

    def test_recovery(self) -> None:
        assert damaged(replace(CLEAN, recovery=None)) == {"I9": 1}
        assert damaged(replace(CLEAN, recovery=9.0, recovery_bound=8.0)) == {"I9": 1}
        assert damaged(replace(CLEAN, recovery=7.0, recovery_bound=8.0)) == {}

    def test_dead_rows(self) -> None:
        bloated = {"event_outbox": TableHealth(1000, 30_000, 0)}
        assert damaged(replace(CLEAN, tables=bloated)) == {"I10": 1}
        updated = {"outbox_lane": TableHealth(64, 0, 1)}
        assert damaged(replace(CLEAN, tables=updated)) == {"I10": 1}
        assert damaged(replace(CLEAN, tables=updated, lane_updates=1)) == {}

    def test_feeds(self) -> None:
        wrong = FeedsHistory(users=2, wrong=["the feed of ann lacks 2"])
        assert damaged(replace(CLEAN, feeds=wrong)) == {"I11": 1}
        impossible = FeedsHistory(
            pages=9, impossible=["a page of ann has post 2", "a page of eve lacks 4"]
        )
        assert damaged(replace(CLEAN, feeds=impossible)) == {"I12": 2}

    def test_examples_are_few_and_the_count_is_whole(self) -> None:
        found = verdicts(replace(CLEAN, applied=(), receipts=("o1",)))["I1"]
        assert (found.damage, len(found.examples)) == (5, 5)
        many = verdicts(replace(CLEAN, unsettled=40))["I6"]
        assert (many.damage, len(many.examples)) == (40, 5)
