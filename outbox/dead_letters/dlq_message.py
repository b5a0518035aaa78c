"""The message that a dead letter leaves on its topic's dead letter topic (guarantees.md#r6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import uuid4

from outbox.conf import topics
from outbox.dead_letters.letter import Letter
from outbox.envelope import (
    TraceContext,
    message_bytes,
    rfc3339,
    to_column,
)
from outbox.topics import DLQ_SUFFIX, DLQ_TYPE, Topic

__all__ = ["bounded_trace", "dlq_headers", "dlq_message", "dlq_topics", "ids_only", "is_dlq"]

_ERROR_HEADER_LENGTH = 500

_TRACE_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class _DlqEvent:
    """The event of the outbox that becomes the message."""

    source: ClassVar[str] = "/outbox/dead-letters"

    event_id: str
    topic: Topic
    type: str
    key: str
    payload: str

    def to_json(self) -> str:
        return self.payload


def dlq_topics() -> dict[str, Topic]:
    """Topic name -> its dead letter topic."""
    return {topic.name: topic.dlq_topic for topic in topics()}


def dlq_message(letter: Letter, headers: dict[str, str], whole: bool) -> _DlqEvent:
    """`whole`: with the payload, if it fits."""
    topic = dlq_topics()[letter.event.topic]
    key, payload = to_column(letter.event.key), letter.event.payload
    fits = message_bytes(key, to_column(payload)) <= topic.max_message_bytes - _bytes(headers)
    if not whole or not fits or payload != to_column(payload):
        payload = ids_only(headers)
    if message_bytes(key, payload) > topic.max_message_bytes - _bytes(headers):
        key = str(letter.event.event_id)
    return _DlqEvent(event_id=str(uuid4()), topic=topic, type=DLQ_TYPE, key=key, payload=payload)


def bounded_trace(trace: TraceContext) -> TraceContext:
    """The ids, empty where they are not valid: a foreign message may carry any text there, even
    one that neither PostgreSQL nor a header can hold."""
    ids = (trace.traceparent, trace.correlation_id)
    return TraceContext(
        *(text if text == to_column(text) and len(text) <= _TRACE_LENGTH else "" for text in ids)
    )


def ids_only(headers: dict[str, str]) -> str:
    """The value of a message on a dead letter topic that carries no payload."""
    return json.dumps(headers, ensure_ascii=False)


def _bytes(headers: dict[str, str]) -> int:
    return sum(len(name) + len(value.encode()) + 8 for name, value in headers.items())


def dlq_headers(letter: Letter, failed_at: datetime) -> dict[str, str]:
    return {
        "original-event-id": str(letter.event.event_id),
        "original-topic": letter.event.topic,
        "original-partition": "" if letter.partition is None else str(letter.partition),
        "original-offset": "" if letter.offset is None else str(letter.offset),
        "handler": letter.handler,
        "error": to_column(letter.error)[:_ERROR_HEADER_LENGTH],
        "failed-at": rfc3339(failed_at),
        "attempts": str(letter.attempts),
        "replay-count": str(letter.replay_count),
    }


def is_dlq(topic: str) -> bool:
    """Whether this is a dead letter topic: its messages never become dead letters."""
    return topic.endswith(DLQ_SUFFIX)
