"""Chunks: runs of one partition on their way from the bridge to a worker, and how a task carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NewType, Self
from uuid import UUID

import msgspec

from outbox.envelope import EventEnvelope, TraceContext
from outbox.topics import PartitionKey
from outbox.tracing import Step

__all__ = ["Chunk", "TaskChunk", "describe_chunks"]

# A chunk as Celery carries it: JSON values only.
TaskChunk = NewType("TaskChunk", dict[str, Any])


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of one partition: offsets from `first_offset` up to, not including, `next_offset`.

    `events` has the subscribed ones with their offsets; what lies between them passes by.
    """

    topic: str
    topic_id: UUID
    partition: int
    first_offset: int
    next_offset: int
    events: tuple[tuple[int, EventEnvelope], ...]
    attempt: int = 0  # how often it was sent before

    @property
    def partition_key(self) -> PartitionKey:
        return self.topic, self.partition

    def to_task(self) -> TaskChunk:
        """JSON form; an event is [offset, id, type, key, source, time, payload, traceparent, correlation]."""
        return TaskChunk(
            {
                "topic": self.topic,
                "topic_id": str(self.topic_id),
                "partition": self.partition,
                "first": self.first_offset,
                "next": self.next_offset,
                "attempt": self.attempt,
                "events": [
                    [
                        offset,
                        event.event_id.hex,
                        event.type,
                        event.key,
                        event.source,
                        event.time,
                        event.payload,
                        event.trace.traceparent,
                        event.trace.correlation_id,
                    ]
                    for offset, event in self.events
                ],
            }
        )

    @classmethod
    def from_task(cls, task: TaskChunk) -> Self:
        """The inverse of to_task."""
        topic = task["topic"]
        return cls(
            topic=topic,
            topic_id=UUID(task["topic_id"]),
            partition=task["partition"],
            first_offset=task["first"],
            next_offset=task["next"],
            events=tuple(
                (event.offset, event.under(topic))
                for event in msgspec.convert(task["events"], list[_TaskEvent])
            ),
            attempt=task.get("attempt", 0),
        )


def describe_chunks(step: Step, chunks: Sequence[Chunk]) -> None:
    """Say on a span which chunks it is about, and link the traces of their events."""
    if not step.recorded:
        return
    step.record(
        {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": chunks[0].topic,
            "messaging.batch.message_count": sum(len(chunk.events) for chunk in chunks),
            "outbox.partitions": [chunk.partition for chunk in chunks],
            "outbox.attempt": max(chunk.attempt for chunk in chunks),
        }
    )
    step.link(event.trace.traceparent for chunk in chunks for _, event in chunk.events)


class _TaskEvent(msgspec.Struct, array_like=True, gc=False):
    """An event as a task carries it; see Chunk.to_task."""

    offset: int
    event_id: UUID
    type: str
    key: str
    source: str
    time: str
    payload: str
    traceparent: str
    correlation_id: str

    def under(self, topic: str) -> EventEnvelope:
        return EventEnvelope(
            event_id=self.event_id,
            type=self.type,
            topic=topic,
            key=self.key,
            source=self.source,
            time=self.time,
            payload=self.payload,
            trace=TraceContext(self.traceparent, self.correlation_id),
        )
