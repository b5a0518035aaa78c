"""A dead letter as a value, and the place in the log that waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from outbox.envelope import (
    EventEnvelope,
    TraceContext,
    from_column,
)
from outbox.models import DeadLetter

__all__ = ["COLUMNS", "Letter", "Place", "State"]


State = DeadLetter.State


COLUMNS = (
    'id, handler, event_id, topic, topic_id, "partition", "offset", key, type, source, event_time,'
    " payload, traceparent, correlation_id, state, attempts, error, failed_at, replay_count"
)


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
    def from_row(cls, row: Sequence[Any]) -> Self:
        (letter_id, handler, event_id, topic, topic_id, partition, offset, key, *fields) = row
        (type_, source, time, payload, traceparent, correlation_id, *state) = fields
        (number, attempts, error, failed_at, replay_count) = state
        return cls(
            handler=handler,
            event=EventEnvelope(
                event_id=event_id,
                type=from_column(type_),
                topic=topic,
                key=from_column(key),
                source=from_column(source),
                time=from_column(time),
                payload=from_column(payload),
                trace=TraceContext(from_column(traceparent), from_column(correlation_id)),
            ),
            topic_id=topic_id,
            partition=partition,
            offset=offset,
            state=number,
            attempts=attempts,
            error=error,
            failed_at=failed_at,
            replay_count=replay_count,
            id=letter_id,
        )
