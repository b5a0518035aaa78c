"""A worker meets an event type that its release does not know: it never applies it, and never loses it."""

from __future__ import annotations

import pytest
from django.db import transaction

from outbox import conf, metrics
from outbox.dead_letters import unknown_type
from outbox.models import DeadLetter, InboxReceipt, OutboxEvent
from outbox.publish.events import UndeclaredType, publish
from outbox.tests.letters import HANDLER, Applied, chunk, event, run
from outbox.tests.unknown_types import (
    ORDER_EVENTS_TOPIC,
    RETURNED,
    State,
    Written,
    letters,
    newer_release,
    ours,
    position,
    replace_type,
    returned,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("positions_of_handlers")]


class TestAWorkerOfAnOlderRelease:
    """A newer bridge sends it what it does not know."""

    def test_applies_what_comes_before_and_leaves_the_rest(self) -> None:
        applied = Applied()
        events = [event("1"), returned("2"), event("3", "other")]
        ours(*events)
        assert run(applied, chunk(events)) == 1
        assert (applied.payloads, position().next_offset) == (["1"], 11)
        assert not DeadLetter.objects.exists()
        assert set(InboxReceipt.objects.values_list("event_id", flat=True)) == {events[0].event_id}
        with newer_release():
            assert run(applied, chunk(events), attempt=1) == 2
        assert (applied.payloads, position().next_offset) == (["1", "2", "3"], 13)

    def test_leaves_a_chunk_that_begins_with_it(self) -> None:
        applied = Applied()
        events = [returned("1")]
        ours(*events)
        for attempt in range(4):
            assert run(applied, chunk(events), attempt=attempt) == 0
        row = position()
        assert (row.next_offset, row.failed_at, row.started_next) == (10, None, None)
        assert not InboxReceipt.objects.exists()

    def test_parks_it_after_the_wait_and_only_its_key_waits(self) -> None:
        applied = Applied()
        events = [event("1"), returned("2"), event("3"), event("4", "other")]
        ours(*events, seconds_ago=601)
        assert run(applied, chunk(events)) == 2
        assert applied.payloads == ["1", "4"]
        assert letters() == [("2", State.PARKED, 0), ("3", State.PARKED, 0)]
        [head, follower] = DeadLetter.objects.order_by("id")
        assert head.error == "unknown type ORDER_RETURNED: release 1 does not know it"
        assert follower.error == ""
        row = position()
        assert (row.next_offset, row.failures, row.failure_run) == (14, 0.0, 0)
        assert not OutboxEvent.objects.filter(topic=ORDER_EVENTS_TOPIC.dlq).exists()

    def test_parks_many_without_a_failure_of_its_circuit(self) -> None:
        events = [returned(str(number), f"key-{number}") for number in range(60)]
        ours(*events, seconds_ago=601)
        assert run(Applied(), chunk(events)) == 0
        assert not position().paused
        assert len(letters()) == 60

    def test_parks_at_once_what_is_parked_already(self) -> None:
        [first], [second] = [returned("1")], [returned("2", "other")]
        ours(first, seconds_ago=601)
        run(Applied(), chunk([first]))
        ours(second, first=11)
        run(Applied(), chunk([second], first=11))
        assert letters() == [("1", State.PARKED, 0), ("2", State.PARKED, 0)]

    def test_parks_it_beside_an_event_that_fails(self) -> None:
        applied = Applied("bad")
        events = [event("1"), returned("2", "r"), event("bad", "b"), event("4")]
        ours(*events, seconds_ago=601)
        assert run(applied, chunk(events)) == 2
        assert applied.payloads == ["1", "4"]
        assert letters() == [("2", State.PARKED, 0), ("bad", State.RETRYING, 1)]

    def test_lets_those_of_others_pass_by(self) -> None:
        applied = Applied()
        events = [event("1"), replace_type(event("2"), "SOMETHING"), event("3")]
        ours(events[0], events[2])
        assert run(applied, chunk(events)) == 2
        assert (applied.payloads, position().next_offset) == (["1", "3"], 13)
        assert InboxReceipt.objects.count() == 2
        assert not DeadLetter.objects.exists()

    def test_lets_a_type_pass_by_that_only_others_subscribe_to(self) -> None:
        applied = Applied()
        events = [event("1"), returned("2"), event("3")]
        ours(*events)
        with newer_release(subscribes=False):
            assert run(applied, chunk(events)) == 2
        assert (applied.payloads, position().next_offset) == (["1", "3"], 13)


def test_names_of_types_of_others_are_bounded() -> None:
    route = conf.route_named(HANDLER)
    strange = [(n, replace_type(event("x"), f"TYPE_{n}")) for n in range(50)]
    assert unknown_type.sort_out(route, strange).events == []
    named = {
        sample.labels["type"]
        for family in metrics.FOREIGN_TYPES.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels["type"].startswith(("TYPE_", "other"))
    }
    assert len([name for name in named if name.startswith("TYPE_")]) <= unknown_type.FOREIGN_NAMES
    assert unknown_type.OTHER in named


def test_those_of_others_are_counted_once_although_they_are_looked_at_again() -> None:
    route = conf.route_named(HANDLER)
    waits, foreign = returned("1"), replace_type(event("2"), "COUNTED_ONCE")
    ours(waits)
    counted = metrics.FOREIGN_TYPES.labels(HANDLER, "COUNTED_ONCE")
    run_of_both = [(10, waits), (11, foreign)]
    for _ in range(3):
        assert unknown_type.sort_out(route, run_of_both).waits == (10, waits)
    assert counted._value.get() == 0
    unknown_type.sort_out(route, run_of_both[1:])
    assert counted._value.get() == 1


def test_a_type_that_no_app_declares_is_not_published() -> None:
    with (
        transaction.atomic(),
        pytest.raises(UndeclaredType, match="ORDER_RETURNED on order-events"),
    ):
        publish([Written(RETURNED)])
    assert not OutboxEvent.objects.exists()
    with transaction.atomic():
        publish([Written("ORDER_CREATED")])
    assert OutboxEvent.objects.count() == 1
