"""A dead letter as a value, and the place in the log that waits for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Self
from uuid import UUID

from outbox.envelope import (
    EventEnvelope,
    TraceContext,
    from_column,
)
from outbox.models import DeadLetter

__all__ = ["Letter", "Place", "State"]

State = DeadLetter.State

Place = tuple[str, int, str]
"""(topic, partition, key): the events of a place keep their order. Messages of other producers may have no
key; then all of them in a partition share one place."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One row of dead_letter; `id` is 0 and the last fields are empty before it is written."""

    handler: str
    event: EventEnvelope
    topic_id: UUID | None = None
    partition: int | None = None
    offset: int | None = None
    state: int = State.RETRYING
    attempts: int = 0
    error: str = ""
    failed_at: datetime | None = None
    replay_count: int = 0
    id: int = 0

    @property
    def place(self) -> Place:
        """The place that waits for it, or in which it waits; letters of the drain have none,
        because they have no partition."""
        assert self.partition is not None
        return self.event.topic, self.partition, self.event.key

    @classmethod
    def of(cls, row: DeadLetter) -> Self:
        event = EventEnvelope(
            event_id=row.event_id,
            type=from_column(row.type),
            topic=row.topic,
            key=from_column(row.key),
            source=from_column(row.source),
            time=from_column(row.event_time),
            payload=from_column(row.payload),
            trace=TraceContext(from_column(row.traceparent), from_column(row.correlation_id)),
        )
        own = {each.name: getattr(row, each.name) for each in fields(cls) if each.name != "event"}
        return cls(event=event, **own)
