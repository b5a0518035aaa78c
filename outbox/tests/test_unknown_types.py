"""A worker meets an event type that its release does not know: it never applies it, and never loses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from outbox import conf, metrics, tasks
from outbox.audit import compare, new_log
from outbox.conf import Retention
from outbox.dead_letters import due, redrive, unknown_type
from outbox.envelope import EventEnvelope
from outbox.kafka.admin import TopicState
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent
from outbox.publish.events import UndeclaredType, publish
from outbox.tests.letters import HANDLER, TOPIC, Applied, chunk, create_positions, event, run
from outbox.topics import Topic
from outbox.upkeep import gauges, purge

pytestmark = pytest.mark.django_db

State = DeadLetter.State
ORDER_EVENTS_TOPIC = conf.route_named(HANDLER).topic
RETURNED = "ORDER_RETURNED"


class OrderReturned:
    """The event class that only the newer release has."""

    topic: ClassVar[Topic] = ORDER_EVENTS_TOPIC
    type: ClassVar[str] = RETURNED


@dataclass(frozen=True)
class Written:
    """What a writer publishes."""

    type: str
    topic: Topic = ORDER_EVENTS_TOPIC
    source: str = "/tests"
    event_id: str = "0198b9a0-0000-7000-8000-000000000001"
    key: str = "k"

    def to_json(self) -> str:
        return "{}"


@pytest.fixture(autouse=True)
def _positions(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 600
    monkeypatch.setattr(unknown_type, "_foreign_names", set())
    create_positions()


@contextmanager
def newer_release(*, subscribes: bool = True) -> Iterator[None]:
    """The code that knows the type; whether its handler subscribes to it or only a writer has it."""
    routes = tuple(
        replace(route, event=(*route.event, OrderReturned))
        if subscribes and route.handler == HANDLER
        else route
        for route in conf.routes()
    )
    published = (*conf.published_events(), OrderReturned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conf, "routes", lambda: routes)
        patch.setattr(conf, "published_events", lambda: published)
        yield


def returned(payload: str, key: str = "k") -> EventEnvelope:
    return replace_type(event(payload, key), RETURNED)


def replace_type(envelope: EventEnvelope, type_: str) -> EventEnvelope:
    return msgspec.structs.replace(envelope, type=type_)


def ours(*envelopes: EventEnvelope, first: int = 10, seconds_ago: float = 0.0) -> None:
    """The outbox holds these, and has published them."""
    for number, envelope in enumerate(envelopes):
        OutboxEvent.objects.create(
            event_id=envelope.event_id,
            lane=1,
            topic=TOPIC,
            key=envelope.key,
            type=envelope.type,
            source="/orders",
            payload=envelope.payload,
            status=OutboxEvent.Status.PUBLISHED,
            partition=0,
            offset=first + number,
        )
    rows = OutboxEvent.objects.filter(event_id__in=[each.event_id for each in envelopes])
    rows.update(published_at=Now() - timedelta(seconds=seconds_ago))


def position() -> BridgePosition:
    return BridgePosition.objects.get(handler=HANDLER, partition=0)


def letters() -> list[tuple[str, int, int]]:
    rows = DeadLetter.objects.order_by("id")
    return [(row.payload, row.state, row.attempts) for row in rows]


def redrive_due(effect: Applied) -> int:
    """What beat and the handler's worker do, in one go."""
    route = conf.route_named(HANDLER)
    return redrive.run_letters(handler=HANDLER, letters=due.claim_due(route), effect=effect)


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


@pytest.fixture
def parked() -> list[EventEnvelope]:
    """Parked by an older release, with a follower."""
    events = [returned("1"), event("2")]
    ours(*events, seconds_ago=601)
    run(Applied(), chunk(events))
    return events


class TestALetterOfAnUnknownType:
    def test_is_redriven_by_itself_once_a_process_knows_the_type(
        self, parked: list[EventEnvelope]
    ) -> None:
        applied = Applied()
        assert unknown_type.take_known(conf.routes()) == 0
        assert redrive_due(applied) == 0
        with newer_release():
            assert unknown_type.take_known(conf.routes()) == 1
            assert redrive_due(applied) == 2
        assert applied.payloads == ["1", "2"]
        assert {state for _, state, _ in letters()} == {State.APPLIED}
        assert not position().letters_open

    def test_beat_takes_it(
        self, parked: list[EventEnvelope], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(due, "send_due", lambda: 0)
        with newer_release():
            tasks.redrive_letters()
        assert letters() == [("1", State.RETRYING, 0), ("2", State.PARKED, 0)]

    def test_is_sent_back_by_an_older_worker_without_a_try(
        self, parked: list[EventEnvelope]
    ) -> None:
        applied = Applied()
        for _ in range(6):
            with newer_release():
                DeadLetter.objects.update(failed_at=None)
                assert unknown_type.take_known(conf.routes()) == 1
            assert redrive_due(applied) == 0
            assert letters() == [("1", State.PARKED, 0), ("2", State.PARKED, 0)]
        with newer_release():
            assert unknown_type.take_known(conf.routes()) == 0  # it was sent back just now
            DeadLetter.objects.update(failed_at=None)
            unknown_type.take_known(conf.routes())
            assert redrive_due(applied) == 2

    def test_behind_another_letter_ends_the_run_of_an_older_worker(self) -> None:
        applied = Applied("bad")
        events = [event("bad"), event("1"), returned("2"), event("3")]
        ours(*events, seconds_ago=601)
        run(applied, chunk(events))
        applied.poison.clear()
        DeadLetter.objects.filter(state=State.RETRYING).update(next_attempt_at=Now())
        assert redrive_due(applied) == 2
        assert applied.payloads == ["bad", "1"]
        assert letters()[2:] == [("2", State.PARKED, 0), ("3", State.PARKED, 0)]
        with newer_release():
            DeadLetter.objects.update(failed_at=None)
            unknown_type.take_known(conf.routes())
            assert redrive_due(applied) == 2
        assert applied.payloads == ["bad", "1", "2", "3"]

    def test_that_failed_in_the_newer_release_keeps_its_tries(self) -> None:
        applied = Applied("1")
        events = [returned("1")]
        ours(*events)
        with newer_release():
            run(applied, chunk(events))
        DeadLetter.objects.update(next_attempt_at=Now())
        assert redrive_due(applied) == 0  # rolled back
        assert letters() == [("1", State.PARKED, 1)]
        applied.poison.clear()
        DeadLetter.objects.update(failed_at=None)
        with newer_release():
            unknown_type.take_known(conf.routes())
            assert redrive_due(applied) == 1

    def test_passes_by_where_the_handler_does_not_subscribe_to_it(
        self, parked: list[EventEnvelope]
    ) -> None:
        applied = Applied()
        with newer_release(subscribes=False):
            unknown_type.take_known(conf.routes())
            redrive_due(applied)
        assert applied.payloads == ["2"]
        assert [state for _, state, _ in letters()] == [State.DISCARDED, State.APPLIED]
        outcome = InboxReceipt.objects.get(event_id=parked[0].event_id).outcome
        assert outcome == InboxReceipt.Outcome.DISCARDED

    def test_is_taken_by_hand(self, parked: list[EventEnvelope]) -> None:
        with pytest.raises(CommandError, match="Release 1 does not know 'ORDER_RETURNED'"):
            call_command("handlers", "take", HANDLER, "--type", RETURNED)
        DeadLetter.objects.update(failed_at=Now())
        applied = Applied()
        with newer_release():
            call_command("handlers", "take", HANDLER, "--type", RETURNED)
            assert redrive_due(applied) == 2

    def test_is_counted_by_type_and_release(self, parked: list[EventEnvelope]) -> None:
        gauge = metrics.UNKNOWN_TYPE_OPEN.labels(HANDLER, RETURNED, "1")
        gauges.measure_unknown_types()
        assert gauge._value.get() == 1
        DeadLetter.objects.all().delete()
        gauges.measure_unknown_types()
        assert gauge._value.get() == 0

    def test_is_found_by_an_index_of_its_own_among_many_that_only_follow(
        self, parked: list[EventEnvelope]
    ) -> None:
        DeadLetter.objects.bulk_create(
            DeadLetter(
                handler=HANDLER,
                event_id=uuid4(),
                topic=TOPIC,
                partition=0,
                key=f"key-{number}",
                type="ORDER_CREATED",
                state=State.PARKED,
            )
            for number in range(2000)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE dead_letter")
            cursor.execute(
                "EXPLAIN SELECT FROM dead_letter WHERE handler = %s AND state = 1"
                " AND error LIKE 'unknown type%%'",
                (HANDLER,),
            )
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "dead_letter_unknown_type" in plan


class TestTheAudit:
    def findings(self) -> list[str]:
        route = conf.route_named(HANDLER)
        return [each.reason for page in compare.pages(route, {}) for each in page]

    def test_tells_what_waits_from_what_is_missing(self) -> None:
        events = [returned("1")]
        ours(*events)
        assert self.findings() == [compare.MissingReason.UNDER_WAY]

    def test_tells_what_is_parked(self, parked: list[EventEnvelope]) -> None:
        assert self.findings() == [compare.MissingReason.PARKED, compare.MissingReason.PARKED]

    def test_misses_nothing_of_a_type_that_was_taken_out_of_the_code(self) -> None:
        ours(returned("1"))
        BridgePosition.objects.update(next_offset=11)
        assert self.findings() == []

    def test_lets_known_types_pass_by(self) -> None:
        ours(returned("1"))
        with newer_release(subscribes=False):
            assert self.findings() == []


class TestALogThatIsGone:
    """The release that moves the positions does not know a type that the newer one published."""

    def adopt(self) -> None:
        partitions = dict.fromkeys(range(ORDER_EVENTS_TOPIC.partitions), 0)
        state = TopicState(TOPIC, uuid4(), earliest=partitions, latest=partitions)
        new_log.adopt_recreated_topics(
            [conf.route_named(HANDLER)], lambda: {TOPIC: state}, lambda _: []
        )

    def test_publishes_again_what_a_handler_waits_for(self) -> None:
        ours(returned("1"))
        self.adopt()
        assert OutboxEvent.objects.get().status == OutboxEvent.Status.NEW

    def test_publishes_nothing_again_that_has_passed_by(self) -> None:
        ours(returned("1"))
        BridgePosition.objects.update(next_offset=11)
        self.adopt()
        assert OutboxEvent.objects.get().status == OutboxEvent.Status.PUBLISHED
        assert InboxReceipt.objects.get().outcome == InboxReceipt.Outcome.DISCARDED


class TestThePurge:
    KEPT = Retention(receipts=10, outbox=20, dead_letters=100)

    def purged(self) -> int:
        OutboxEvent.objects.update(
            created_at=F("created_at") - timedelta(hours=30),
            published_at=F("published_at") - timedelta(hours=30),
        )
        return purge.purge(self.KEPT).events

    def test_keeps_what_a_handler_waits_for(self) -> None:
        ours(returned("1"))
        assert self.purged() == 0

    def test_keeps_what_is_parked(self, parked: list[EventEnvelope]) -> None:
        DeadLetter.objects.filter(payload="2").delete()
        assert self.purged() == 0

    def test_lets_go_of_what_has_passed_by(self) -> None:
        ours(returned("1"))
        BridgePosition.objects.update(next_offset=11)
        assert self.purged() == 1


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
