"""One transaction over position, receipts and effect: what a chunk may and may not change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection, transaction
from kombu.utils import json as kombu_json

from outbox.database.errors import LOCK_NOT_AVAILABLE
from outbox.envelope import EventEnvelope
from outbox.handlers import task
from outbox.inbox import positions
from outbox.inbox.chunk import Chunk, TaskChunk
from outbox.models import BridgePosition, DeadLetter, InboxReceipt

HANDLER = "record_sales"
TOPIC = "order-events"
TOPIC_ID = UUID("11111111-2222-3333-4444-555555555555")


def event(number: int, event_id: UUID | None = None) -> EventEnvelope:
    return EventEnvelope(
        event_id=event_id or uuid4(),
        type="ORDER_CREATED",
        topic=TOPIC,
        key="k",
        source="/orders",
        time="2026-03-11T22:00:00.000Z",
        payload=str(number),
    )


def chunk(first: int, events: Sequence[EventEnvelope], *, partition: int = 0) -> Chunk:
    numbered = tuple((first + index, item) for index, item in enumerate(events))
    return Chunk(TOPIC, TOPIC_ID, partition, first, first + len(events), numbered)


class Applied:
    """An effect that remembers; it can be told to fail."""

    def __init__(self) -> None:
        self.payloads: list[str] = []
        self.poison: str = ""

    def __call__(self, events: Sequence[EventEnvelope]) -> None:
        if any(item.payload == self.poison for item in events):
            raise ValueError("poison")
        self.payloads += [item.payload for item in events]


@pytest.fixture
def applied() -> Applied:
    return Applied()


@pytest.fixture
def position(db: None) -> None:
    for partition in (0, 1):
        BridgePosition.objects.create(
            handler=HANDLER, topic=TOPIC, partition=partition, topic_id=TOPIC_ID, next_offset=10
        )


def run(applied: Applied, *chunks: Chunk) -> int:
    """As a worker gets it: through JSON."""
    carried = [TaskChunk(kombu_json.loads(kombu_json.dumps(item.to_task()))) for item in chunks]
    return task.run_chunks(handler=HANDLER, chunks=carried, effect=applied)


def next_offset(partition: int = 0) -> int:
    return BridgePosition.objects.get(handler=HANDLER, partition=partition).next_offset


@pytest.mark.usefixtures("position")
class TestAChunk:
    def test_applies_in_order_with_receipts_and_position(self, applied: Applied) -> None:
        events = [event(1), event(2)]
        assert run(applied, chunk(10, events)) == 2
        assert applied.payloads == ["1", "2"]
        assert next_offset() == 12
        receipts = InboxReceipt.objects.values_list("event_id", "handler", "outcome")
        assert set(receipts) == {(item.event_id, HANDLER, 0) for item in events}

    def test_twice_changes_nothing(self, applied: Applied) -> None:
        same = chunk(10, [event(1)])
        assert [run(applied, same), run(applied, same)] == [1, 0]
        assert applied.payloads == ["1"]
        assert InboxReceipt.objects.count() == 1

    def test_late_changes_nothing(self, applied: Applied) -> None:
        early, later = chunk(10, [event(1)]), chunk(11, [event(2)])
        run(applied, early)
        run(applied, later)
        assert run(applied, early) == 0
        assert (applied.payloads, next_offset()) == (["1", "2"], 12)

    def test_out_of_turn_changes_nothing(self, applied: Applied) -> None:
        assert run(applied, chunk(11, [event(2)])) == 0
        assert (applied.payloads, next_offset()) == ([], 10)
        assert InboxReceipt.objects.count() == 0

    def test_that_overlaps_the_position_applies_only_the_rest(self, applied: Applied) -> None:
        events = [event(1), event(2), event(3)]
        run(applied, chunk(10, events[:2]))
        assert run(applied, chunk(10, events)) == 1
        assert applied.payloads == ["1", "2", "3"]

    def test_of_another_log_changes_nothing(self, applied: Applied) -> None:
        foreign = Chunk(TOPIC, uuid4(), 0, 10, 11, ((10, event(1)),))
        assert run(applied, foreign) == 0
        assert (applied.payloads, next_offset()) == ([], 10)

    def test_of_a_paused_partition_changes_nothing(self, applied: Applied) -> None:
        BridgePosition.objects.filter(partition=0).update(paused=True)
        assert run(applied, chunk(10, [event(1)])) == 0
        assert (applied.payloads, next_offset()) == ([], 10)

    def test_without_a_position_changes_nothing(self, applied: Applied) -> None:
        assert run(applied, chunk(10, [event(1)], partition=7)) == 0
        assert applied.payloads == []

    def test_without_subscribed_events_moves_the_position(self, applied: Applied) -> None:
        assert run(applied, Chunk(TOPIC, TOPIC_ID, 0, 10, 15, ())) == 0
        assert next_offset() == 15

    def test_counts_an_event_once_that_stands_in_it_twice(self, applied: Applied) -> None:
        once = event(1)
        assert run(applied, chunk(10, [once, event(2), once])) == 2
        assert applied.payloads == ["1", "2"]
        assert next_offset() == 13

    def test_counts_an_event_once_that_comes_again_at_another_offset(
        self, applied: Applied
    ) -> None:
        once = event(1)
        run(applied, chunk(10, [once]))
        assert run(applied, chunk(11, [once])) == 0
        assert (applied.payloads, next_offset()) == (["1"], 12)

    def test_of_several_partitions_is_one_transaction(
        self, applied: Applied, django_assert_num_queries: Any
    ) -> None:
        chunks = [chunk(10, [event(1)], partition=1), chunk(10, [event(2)], partition=0)]
        # savepoint of the test's own transaction, lock and limit, receipts, positions, release
        with django_assert_num_queries(5):
            assert run(applied, *chunks) == 2
        assert (next_offset(0), next_offset(1)) == (11, 11)


@pytest.mark.usefixtures("position")
class TestAFailingEffect:
    def test_costs_its_event_and_nothing_else(self, applied: Applied) -> None:
        applied.poison = "2"
        count = run(applied, chunk(10, [event(1)], partition=0), chunk(10, [event(2)], partition=1))
        assert count == 1
        assert (applied.payloads, next_offset(0), next_offset(1)) == (["1"], 11, 11)
        assert DeadLetter.objects.get().partition == 1


@pytest.mark.django_db(transaction=True)
class TestTwoCopiesAtOnce:
    def test_the_second_is_told_busy_and_changes_nothing(self, applied: Applied) -> None:
        BridgePosition.objects.create(
            handler=HANDLER, topic=TOPIC, partition=0, topic_id=TOPIC_ID, next_offset=10
        )
        same = chunk(10, [event(1)])
        outcome: list[str] = []

        def second_copy() -> None:
            try:
                task.apply_chunks(handler=HANDLER, chunks=[same], effect=applied)
            except OperationalError as error:
                outcome.append(getattr(error.__cause__, "sqlstate", ""))
            outcome.append(str(run(applied, same)))
            connection.close()

        with transaction.atomic():
            positions.lock_positions(HANDLER, [(TOPIC, 0)])
            thread = threading.Thread(target=second_copy)
            thread.start()
            thread.join()
        assert outcome == [LOCK_NOT_AVAILABLE, "0"]
        assert applied.payloads == []
        assert run(applied, same) == 1

    def test_a_busy_partition_holds_up_no_other(self, applied: Applied) -> None:
        for partition in (0, 1):
            BridgePosition.objects.create(
                handler=HANDLER, topic=TOPIC, partition=partition, topic_id=TOPIC_ID, next_offset=10
            )
        chunks = [chunk(10, [event(1)], partition=0), chunk(10, [event(2)], partition=1)]

        def both() -> None:
            run(applied, *chunks)
            connection.close()

        with transaction.atomic():
            positions.lock_positions(HANDLER, [(TOPIC, 0)])
            thread = threading.Thread(target=both)
            thread.start()
            thread.join()
        assert applied.payloads == ["2"]
