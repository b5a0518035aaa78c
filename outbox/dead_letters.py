"""The rows of dead letters: what is parked, what is due, what is resolved, and telling the world.

Every function here runs in the caller's transaction, which holds the lock of the position
(handlers) or of the lane (the drain) wherever the order of a key depends on it (rule R12).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID, uuid4

from django.db import connection

from outbox import metrics
from outbox.conf import REDRIVE, Route, topics
from outbox.envelope import (
    EventEnvelope,
    TraceContext,
    from_column,
    message_bytes,
    rfc3339,
    to_column,
)
from outbox.models import DeadLetter
from outbox.services import publish
from outbox.topics import DLQ_SUFFIX, Topic

__all__ = [
    "DRAIN_HANDLER",
    "ERROR_LENGTH",
    "NEVER_ENDED",
    "Letter",
    "Place",
    "backoff",
    "bury",
    "head_of",
    "ids_only",
    "is_dlq",
    "lock_letters",
    "park",
    "parked_keys",
    "promote",
    "read_letter",
    "resolve",
]

DRAIN_HANDLER = "outbox.drain"
NEVER_ENDED = "The process ended, or its time was up, while it ran this event."
ERROR_LENGTH = 4000
_ERROR_HEADER_LENGTH = 500
_TRACE_LENGTH = 128

State = DeadLetter.State
_COLUMNS = (
    'id, handler, event_id, topic, topic_id, "partition", "offset", key, type, source, event_time,'
    " payload, traceparent, correlation_id, state, attempts, error, failed_at, replay_count"
)


Place = tuple[str, int, str]
"""(topic, partition, key): what keeps an order. Messages of others may have no key, which makes
one sequence of each partition."""


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
        """What it holds up, or waits in; not for letters of the drain, which have no partition."""
        assert self.partition is not None
        return self.event.topic, self.partition, self.event.key

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """A row of _COLUMNS."""
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


def backoff(route: Route, attempts: int) -> float:
    """Seconds to wait after that many tries, give or take a fifth."""
    delays = route.retries
    delay = delays[min(max(attempts, 1), len(delays)) - 1]
    return delay * random.uniform(1 - REDRIVE.jitter, 1 + REDRIVE.jitter)  # noqa: S311


# -- parking --------------------------------------------------------------------------------


def parked_keys(handler: str, places: Iterable[Place]) -> set[Place]:
    """Which of these places have an open dead letter of the handler.

    A statement of its own after the position is locked: its snapshot sees all that the last
    holder of the lock committed.
    """
    wanted = {(topic, partition, to_column(key)) for topic, partition, key in places}
    if not wanted:
        return set()
    names, partitions, keys = zip(*sorted(wanted), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT topic, "partition", key
            FROM unnest(%s::text[], %s::smallint[], %s::text[]) AS wanted (topic, "partition", key)
            WHERE EXISTS (
                SELECT FROM dead_letter AS letter
                WHERE letter.handler = %s AND letter.topic = wanted.topic
                  AND md5(letter.key) = md5(wanted.key) AND letter.key = wanted.key
                  AND letter."partition" = wanted."partition" AND letter.state < 3
            )
            """,
            (list(names), list(partitions), list(keys), handler),
        )
        return {(topic, partition, from_column(key)) for topic, partition, key in cursor.fetchall()}


def park(letters: Sequence[Letter], *, delay: float = 0.0) -> None:
    """Write letters in the order given; the retrying ones are due after `delay` seconds."""
    rows = [
        (
            letter.handler,
            letter.event.event_id,
            letter.event.topic,
            letter.topic_id,
            letter.partition,
            letter.offset,
            *map(
                to_column,
                (
                    letter.event.key,
                    letter.event.type,
                    letter.event.source,
                    letter.event.time,
                    letter.event.payload,
                    letter.event.trace.traceparent,
                    letter.event.trace.correlation_id,
                    letter.error[:ERROR_LENGTH],
                ),
            ),
            int(letter.state),
            letter.attempts,
        )
        for letter in letters
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dead_letter (handler, event_id, topic, topic_id, "partition", "offset", key,
                type, source, event_time, payload, traceparent, correlation_id, error, state,
                attempts, failed_at, next_attempt_at)
            SELECT handler, event_id, topic, topic_id, "partition", "offset", key, type, source,
                event_time, payload, traceparent, correlation_id, error, state, attempts,
                CASE WHEN state <> 1 THEN clock_timestamp() END,
                CASE WHEN state = 0 THEN clock_timestamp() + make_interval(secs => %s) END
            FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::uuid[], %s::smallint[], %s::bigint[],
                %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::text[], %s::smallint[], %s::int[])
                WITH ORDINALITY AS letter (handler, event_id, topic, topic_id, "partition",
                    "offset", key, type, source, event_time, payload, traceparent, correlation_id,
                    error, state, attempts, place)
            ORDER BY place
            ON CONFLICT (handler, event_id) WHERE state < 3 DO NOTHING
            """,
            (delay, *(list(column) for column in zip(*rows, strict=True))),
        )
    for letter in letters:
        metrics.PARKED.labels(letter.handler).inc()


# -- resolving ------------------------------------------------------------------------------


def lock_letters(ids: Iterable[int]) -> list[Letter]:
    """The open ones among these rows, locked, in order."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM dead_letter WHERE id = ANY(%s) AND state < 3"
            " ORDER BY id FOR UPDATE",
            (list(ids),),
        )
        return [Letter.from_row(row) for row in cursor.fetchall()]


def read_letter(letter_id: int) -> Letter | None:
    """An open letter, without a lock; None if it is resolved."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM dead_letter WHERE id = %s AND state < 3", (letter_id,)
        )
        row = cursor.fetchone()
    return Letter.from_row(row) if row else None


def head_of(handler: str, place: Place, *, limit: int = 1, parked: bool = False) -> list[Letter]:
    """The first open letters of a key, in order; `parked`: of those that wait behind another."""
    topic, partition, key = place
    column = to_column(key)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM dead_letter
            WHERE handler = %s AND topic = %s AND md5(key) = md5(%s) AND key = %s AND state < 3
              AND "partition" = %s AND (state = 1 OR NOT %s)
            ORDER BY id LIMIT %s
            """,
            (handler, topic, column, column, partition, parked, limit),
        )
        return [Letter.from_row(row) for row in cursor.fetchall()]


def resolve(ids: Iterable[int], state: int, *, by: str, note: str = "") -> None:
    """Close letters as applied or discarded."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter
            SET state = %s, resolved_at = clock_timestamp(), resolved_by = %s, note = %s,
                next_attempt_at = NULL
            WHERE id = ANY(%s) AND state < 3
            """,
            (int(state), by, note, list(ids)),
        )


def promote(letter_id: int, *, delay: float) -> None:
    """Make a follower the head of its key, due after `delay` seconds."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter
            SET state = 0, next_attempt_at = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 1
            """,
            (delay, letter_id),
        )


def bury(letters: Sequence[Letter], *, whole: bool = True) -> None:
    """Make open letters dead, and tell the world: one message each on `<topic>.dlq`.

    `whole`: with the event's value where it fits.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter SET state = 2, next_attempt_at = NULL, error = last.error,
                failed_at = clock_timestamp()
            FROM unnest(%s::bigint[], %s::text[]) AS last (id, error)
            WHERE dead_letter.id = last.id
            RETURNING dead_letter.id, failed_at
            """,
            (
                [letter.id for letter in letters],
                [to_column(letter.error[:ERROR_LENGTH]) for letter in letters],
            ),
        )
        failed_at = dict(cursor.fetchall())
    told = [letter for letter in letters if letter.event.topic in _dlq_topics()]
    headers = [_headers(letter, failed_at[letter.id]) for letter in told]
    publish(
        [_message(letter, each, whole) for letter, each in zip(told, headers, strict=True)],
        traces=[_trace(letter.event.trace) for letter in told],
        headers=headers,
    )


# -- the message on the dead letter topic ---------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeadLetterTold:
    """The event of the outbox that tells of a dead letter."""

    source: ClassVar[str] = "/outbox/dead-letters"

    event_id: str
    topic: Topic
    type: str
    key: str
    payload: str

    def to_json(self) -> str:
        return self.payload


def _dlq_topics() -> dict[str, Topic]:
    return {topic.name: topic.dlq_topic for topic in topics()}


def _message(letter: Letter, headers: dict[str, str], whole: bool) -> _DeadLetterTold:
    topic = _dlq_topics()[letter.event.topic]
    key, payload = to_column(letter.event.key), letter.event.payload
    fits = message_bytes(key, to_column(payload)) <= topic.max_message_bytes - _bytes(headers)
    if not whole or not fits or payload != to_column(payload):
        payload = ids_only(headers)
    if message_bytes(key, payload) > topic.max_message_bytes - _bytes(headers):
        key = str(letter.event.event_id)
    return _DeadLetterTold(
        event_id=str(uuid4()), topic=topic, type="DEAD_LETTER", key=key, payload=payload
    )


def _trace(trace: TraceContext) -> TraceContext:
    """Without what is no id: a foreign message carries anything there, also what neither
    PostgreSQL nor the headers of a message can hold."""
    ids = (trace.traceparent, trace.correlation_id)
    return TraceContext(
        *(text if text == to_column(text) and len(text) <= _TRACE_LENGTH else "" for text in ids)
    )


def ids_only(headers: dict[str, str]) -> str:
    """The value of a message on a dead letter topic that carries no payload."""
    return json.dumps(headers, ensure_ascii=False)


def _bytes(headers: dict[str, str]) -> int:
    return sum(len(name) + len(value.encode()) + 8 for name, value in headers.items())


def _headers(letter: Letter, failed_at: datetime) -> dict[str, str]:
    def number(value: int | None) -> str:
        return "" if value is None else str(value)

    return {
        "original-event-id": str(letter.event.event_id),
        "original-topic": letter.event.topic,
        "original-partition": number(letter.partition),
        "original-offset": number(letter.offset),
        "handler": letter.handler,
        "error": to_column(letter.error)[:_ERROR_HEADER_LENGTH],
        "failed-at": rfc3339(failed_at),
        "attempts": str(letter.attempts),
        "replay-count": str(letter.replay_count),
    }


def is_dlq(topic: str) -> bool:
    """Whether a topic tells of dead letters: its messages never become one."""
    return topic.endswith(DLQ_SUFFIX)
