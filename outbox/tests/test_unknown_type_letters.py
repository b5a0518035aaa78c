"""An event of an unknown type is a dead letter: how it is counted, redriven, audited and purged."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from outbox import conf, metrics, tasks
from outbox.audit import compare, new_log
from outbox.conf import Retention
from outbox.dead_letters import due, unknown_type
from outbox.envelope import EventEnvelope
from outbox.kafka.admin import TopicState
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent
from outbox.tests.letters import HANDLER, TOPIC, Applied, chunk, event, run
from outbox.tests.unknown_types import (
    ORDER_EVENTS_TOPIC,
    RETURNED,
    State,
    letters,
    newer_release,
    ours,
    position,
    redrive_due,
    returned,
)
from outbox.upkeep import gauges, purge

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("positions_of_handlers")]


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
