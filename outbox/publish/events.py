"""Writing: `publish` puts events into the caller's transaction, and nothing else does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Protocol

from django.db import connection

from outbox import metrics
from outbox.conf import partition_counts, publishable
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import RoundTrip, Statement, send
from outbox.envelope import NO_TRACE, TraceContext, fits, message_bytes
from outbox.publish import nudge
from outbox.topics import Topic, lane_of

__all__ = [
    "Event",
    "EventTooLarge",
    "NotInTransaction",
    "UndeclaredType",
    "UnknownTopic",
    "publish",
    "publishing",
]

_COLUMNS = "event_id, lane, topic, key, type, source, payload, traceparent, correlation_id"
_ARRAYS = "%s::uuid[], %s::smallint[]" + ", %s::text[]" * 7
_INSERT = """
    INSERT INTO event_outbox ({columns})
    SELECT {columns} FROM unnest({arrays}) WITH ORDINALITY AS event ({columns}, position)
    ORDER BY position
"""
INSERT_EVENTS = _INSERT.format(columns=_COLUMNS, arrays=_ARRAYS)
_INSERT_WITH_HEADERS = _INSERT.format(
    columns=f"{_COLUMNS}, headers", arrays=f"{_ARRAYS}, %s::jsonb[]"
)


class Event(Protocol):
    """What `publish` takes: a frozen value of a writer's `events.py`."""

    @property
    def topic(self) -> Topic:
        """Where it goes; for almost every event a constant of its class."""

    @property
    def source(self) -> str:
        """Where it comes from, for example /orders."""

    @property
    def event_id(self) -> str:
        """UUID, unique for ever; the receipt of every handler is kept under it."""

    @property
    def type(self) -> str:
        """Name of the event type, for example ORDER_CREATED."""

    @property
    def key(self) -> str:
        """What the order of events is kept by: one key, one partition, one sequence."""

    def to_json(self) -> str:
        """The message's value, in the shape of the topic's contract."""


class NotInTransaction(RuntimeError):
    """publish() was called outside a transaction: the event could be lost, or come from a rollback.

    Open one around the change and its events, for example with `unit_of_work()`.
    """


class EventTooLarge(ValueError):
    """The event does not fit its topic's limit; the caller's change must not be stored without it."""


class UnknownTopic(LookupError):
    """The event's topic is not in the event map: no drain would send it.

    Declare a route for it in the wiring.py of the app that is to read it; or, if only other programs
    do, the topic as one of for_others in the wiring.py of the app that publishes it.
    """


class UndeclaredType(LookupError):
    """No app declares that it publishes this type: running processes may not know it.

    Name its class in `publishes` in the wiring.py of the app that publishes it, one release after
    the code that reads it.
    """


def publish(
    events: Sequence[Event],
    *,
    traces: Sequence[TraceContext] = (),
    headers: Sequence[Mapping[str, str]] = (),
) -> None:
    """Add events to the open transaction, in order; they reach Kafka if and only if it commits.

    The caller has created or locked the row of each key before (guarantees.md#r1). `traces`: one for each
    event, or none; so are `headers`, which go beside those of every message. One statement, whatever the
    number. Raises NotInTransaction, UnknownTopic, UndeclaredType and EventTooLarge, in each case before
    writing.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction(NotInTransaction.__doc__)
    send(publishing(events, traces=traces, headers=headers))


def publishing(
    events: Sequence[Event],
    *,
    traces: Sequence[TraceContext] = (),
    headers: Sequence[Mapping[str, str]] = (),
) -> RoundTrip:
    """The statements of `publish`, for a caller that sends them together with the rest of its
    change, after it.

    Raises UnknownTopic, UndeclaredType and EventTooLarge.
    """
    if not events:
        return RoundTrip()
    names = [event.topic.name for event in events]
    types = [event.type for event in events]
    if not publishable().issuperset(zip(names, types, strict=True)):
        raise _undeclared(names, types)
    traces = traces or [NO_TRACE] * len(events)
    keys = [event.key for event in events]
    payloads = [event.to_json() for event in events]
    for event, key, payload in zip(events, keys, payloads, strict=True):
        if not fits(key, payload, event.topic.max_message_bytes):
            raise _too_large(event, payload)
    lanes = {key: lane_of(key) for key in set(keys)}  # events of one change often share a key
    columns = (
        text_array_literal([event.event_id for event in events]),
        array_literal([lanes[key] for key in keys]),
        text_array_literal(names),
        text_array_literal(keys),
        text_array_literal(types),
        text_array_literal([event.source for event in events]),
        text_array_literal(payloads),
        text_array_literal([trace.traceparent for trace in traces]),
        text_array_literal([trace.correlation_id for trace in traces]),
    )
    statement: Statement = (INSERT_EVENTS, columns)
    if headers:
        written = text_array_literal([json.dumps(each) for each in headers])
        statement = (_INSERT_WITH_HEADERS, (*columns, written))
    return RoundTrip([statement], on_commit=partial(_published, Counter(names)))


_published_to = cache(metrics.PUBLISHED.labels)  # a look by label costs more than to count


def _published(counts: Mapping[str, int]) -> None:
    nudge.nudge()
    for name, count in counts.items():
        _published_to(name).inc(count)


def _undeclared(names: Sequence[str], types: Sequence[str]) -> LookupError:
    unknown = set(names).difference(partition_counts())
    if unknown:
        return UnknownTopic(f"{', '.join(sorted(unknown))}: {UnknownTopic.__doc__}")
    undeclared = set(zip(names, types, strict=True)) - publishable()
    listed = ", ".join(f"{type_} on {name}" for name, type_ in sorted(undeclared))
    return UndeclaredType(f"{listed}: {UndeclaredType.__doc__}")


def _too_large(event: Event, payload: str) -> EventTooLarge:
    return EventTooLarge(
        f"{event.type} {event.event_id} has {message_bytes(event.key, payload)} bytes; "
        f"topic {event.topic.name} takes {event.topic.max_message_bytes}."
    )
