"""What the tests of dead letters share: events, chunks, and an effect that can fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

from kombu.utils import json as kombu_json

from outbox import conf
from outbox.dead_letters import due, redrive
from outbox.envelope import EventEnvelope
from outbox.handlers import task
from outbox.handlers.task import Effect
from outbox.inbox.chunk import Chunk, TaskChunk
from outbox.models import BridgePosition, DeadLetter, InboxReceipt

HANDLER = "record_sales"
ROUTE = conf.route_named(HANDLER)
TOPIC = "order-events"
TOPIC_ID = UUID("11111111-2222-3333-4444-555555555555")
State = DeadLetter.State


def event(payload: str, key: str = "k") -> EventEnvelope:
    return EventEnvelope(
        event_id=uuid4(),
        type="ORDER_CREATED",
        topic=TOPIC,
        key=key,
        source="/orders",
        time="2026-03-11T22:00:00.000Z",
        payload=payload,
    )


def chunk(events: Sequence[EventEnvelope], *, first: int = 10, partition: int = 0) -> Chunk:
    numbered = tuple((first + index, item) for index, item in enumerate(events))
    return Chunk(TOPIC, TOPIC_ID, partition, first, first + len(events), numbered)


class Applied:
    """An effect that remembers, and fails for the payloads it is told."""

    def __init__(self, *poison: str) -> None:
        self.payloads: list[str] = []
        self.poison = set(poison)
        self.error: Exception = ValueError("poison")
        self.calls = 0

    def __call__(self, events: Sequence[EventEnvelope]) -> None:
        self.calls += 1
        if self.poison & {item.payload for item in events}:
            raise self.error
        self.payloads += [item.payload for item in events]


def create_positions(partitions: int = 2) -> None:
    for partition in range(partitions):
        BridgePosition.objects.create(
            handler=HANDLER, topic=TOPIC, partition=partition, topic_id=TOPIC_ID, next_offset=10
        )


def run(effect: Effect, *chunks: Chunk, attempt: int = 0) -> int:
    """As a worker gets it: through JSON."""
    sent = [replace(item, attempt=attempt) for item in chunks]
    carried = [TaskChunk(kombu_json.loads(kombu_json.dumps(item.to_task()))) for item in sent]
    return task.run_chunks(handler=HANDLER, chunks=carried, effect=effect)


def position(partition: int = 0) -> BridgePosition:
    return BridgePosition.objects.get(handler=HANDLER, partition=partition)


def states(*payloads: str) -> list[str]:
    """The state of the letters, in order; of these payloads only, if any are named."""
    rows = DeadLetter.objects.order_by("id")
    rows = rows.filter(payload__in=payloads) if payloads else rows
    return [row.get_state_display() for row in rows]


def outcomes() -> list[int]:
    """How many receipts say applied, parked, discarded."""
    return [InboxReceipt.objects.filter(outcome=number).count() for number in range(3)]


def make_due() -> None:
    """All backoffs and leases have run out."""
    DeadLetter.objects.filter(state=State.RETRYING).update(next_attempt_at="2026-01-01T00:00:00Z")


def redrive_due(effect: Effect) -> int:
    """What beat and a worker do with the letters that are due by now."""
    return redrive_copy(effect, due.claim_due(ROUTE))


def redrive_copy(effect: Effect, claims: Sequence[redrive.Claim]) -> int:
    """What a worker does with one task of these letters, as it gets it: through JSON."""
    letters = kombu_json.loads(kombu_json.dumps(claims))
    return redrive.run_letters(handler=HANDLER, letters=letters, effect=effect)
