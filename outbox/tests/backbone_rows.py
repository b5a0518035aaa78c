"""Rows of the backbone as tests need them: events in a given state, positions, receipts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db.models import F

from outbox.conf import DRAIN_HANDLER, topics
from outbox.kafka.admin import TopicState
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent

__all__ = [
    "HANDLER",
    "LOG",
    "ORDER_EVENTS",
    "TOPIC",
    "TOPIC_ID",
    "age",
    "positions",
    "published",
    "receipt",
    "refused",
]

HANDLER = "record_sales"
TOPIC = "order-events"
ORDER_EVENTS = next(topic for topic in topics() if topic.name == TOPIC)
TOPIC_ID = UUID("11111111-2222-3333-4444-555555555555")
# What Kafka is said to hold: partition 0 begins at offset 5, the others at 0.
LOG = TopicState(
    TOPIC,
    TOPIC_ID,
    {number: 5 * (number == 0) for number in range(12)},
    dict.fromkeys(range(12), 99),
)


def positions(next_offset: int, **changes: Any) -> None:
    """The handler at this offset of every partition."""
    for partition in range(12):
        BridgePosition.objects.create(
            topic=TOPIC,
            partition=partition,
            next_offset=next_offset,
            **{"handler": HANDLER, "topic_id": TOPIC_ID, **changes},
        )


def published(
    offsets: Sequence[int], *, partition: int | None = 1, **changes: Any
) -> list[OutboxEvent]:
    """One event in Kafka for each offset."""
    fields: dict[str, Any] = {
        "topic": TOPIC,
        "key": "k",
        "type": "ORDER_CREATED",
        "source": "/",
        "payload": "{}",
    }
    fields |= {"lane": 1, "status": OutboxEvent.Status.PUBLISHED, "partition": partition, **changes}
    return [
        OutboxEvent.objects.create(event_id=uuid4(), **{"offset": offset, **fields})
        for offset in offsets
    ]


def receipt(event: OutboxEvent, outcome: int = 0, handler: str = HANDLER) -> InboxReceipt:
    return InboxReceipt.objects.create(event_id=event.event_id, handler=handler, outcome=outcome)


def refused(state: int) -> OutboxEvent:
    """An event that Kafka has refused, its dead letter in this state."""
    [event] = published([0], offset=None, partition=None, status=OutboxEvent.Status.DEAD)
    DeadLetter.objects.create(
        handler=DRAIN_HANDLER, event_id=event.event_id, topic=TOPIC, key="k", state=state
    )
    return event


def age(hours: float) -> None:
    """Let all that there is be older."""
    ago = timedelta(hours=hours)
    OutboxEvent.objects.update(created_at=F("created_at") - ago, published_at=F("created_at") - ago)
    InboxReceipt.objects.update(applied_at=F("applied_at") - ago)
