"""Writing: `publish` puts events into the caller's transaction, and nothing else does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)

from outbox import metrics, nudge
from outbox.arrays import array_literal, text_array_literal
from outbox.conf import partition_counts
from outbox.envelope import NO_TRACE, TraceContext, fits, message_bytes
from outbox.failures import LOST, READ_ONLY, is_everybodys, sqlstate_of
from outbox.round_trips import RoundTrip, Statement, send
from outbox.topics import Topic, lane_of

__all__ = [
    "Commit",
    "Event",
    "EventTooLarge",
    "NotInTransaction",
    "NotStored",
    "OutcomeUnknown",
    "TurnedAway",
    "UnknownTopic",
    "joined_unit_of_work",
    "outcome_told",
    "publish",
    "publishing",
    "unit_of_work",
]

IDLE_TOO_LONG = "25P03"
# What the driver files under InternalError though nothing is wrong with us: PostgreSQL ended the session,
# idle in a transaction or too long in one, or takes no writes, as a standby in the middle of a failover.
NO_WRITES = (IDLE_TOO_LONG, "25P04", READ_ONLY)

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
        """Who tells it, for example /orders."""

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

    Add a route for it to the map that OUTBOX_EVENT_MAP names; or, if only other programs read it,
    the topic to the list that OUTBOX_TOPICS_FOR_OTHERS names.
    """


class NotStored(OperationalError):
    """The database failed before COMMIT: nothing of the change is stored, it is safe to try again.

    refused  whether the server has refused these statements and goes on with others
    """

    outcome = "not_stored"

    def __init__(self, *args: object, refused: bool = False) -> None:
        super().__init__(*args)
        self.refused = refused


class TurnedAway(NotStored):
    """The change has not got as far as the database; the text says why, and is for the client."""


class OutcomeUnknown(OperationalError):
    """The connection was lost with COMMIT under way: the change is stored whole or not at all, and
    we do not know."""

    outcome = "unknown"


def publish(
    events: Sequence[Event],
    *,
    traces: Sequence[TraceContext] = (),
    headers: Sequence[Mapping[str, str]] = (),
) -> None:
    """Add events to the open transaction, in order; they reach Kafka if and only if it commits.

    The caller has created or locked the row of each key before (rule R1). `traces`: one for each
    event, or none; so are `headers`, which go beside those of every message. One statement, whatever the
    number. Raises NotInTransaction, UnknownTopic and EventTooLarge, in each case before writing.
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
    """What `publish` sends, for who sends it together with the rest of its change, and behind that.

    Raises UnknownTopic and EventTooLarge.
    """
    if not events:
        return RoundTrip()
    names = [event.topic.name for event in events]
    _refuse_unknown_topics(names)
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
        text_array_literal([event.type for event in events]),
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


def _refuse_unknown_topics(names: Sequence[str]) -> None:
    unknown = set(names).difference(partition_counts())
    if unknown:
        raise UnknownTopic(f"{', '.join(sorted(unknown))}: {UnknownTopic.__doc__}")


def _too_large(event: Event, payload: str) -> EventTooLarge:
    return EventTooLarge(
        f"{event.type} {event.event_id} has {message_bytes(event.key, payload)} bytes; "
        f"topic {event.topic.name} takes {event.topic.max_message_bytes}."
    )


@dataclass(slots=True)
class Commit:
    """What the owner of a transaction knows: whether the server may have begun with its COMMIT."""

    begun: bool = False


@contextmanager
def outcome_told() -> Iterator[Commit]:
    """Around a transaction whose owner sets `begun` where the server may have begun with COMMIT:
    what became of it if the database fails.

    Raises NotStored or OutcomeUnknown in place of the driver's error; both are OperationalErrors.
    """
    commit = Commit()
    try:
        yield commit
    except (DatabaseError, InterfaceError) as error:
        if commit.begun and not _refused_by_server(error):
            raise OutcomeUnknown(str(error)) from error
        is_away = isinstance(error, OperationalError | InterfaceError)
        if not is_away and sqlstate_of(error) not in NO_WRITES:
            raise
        refused = is_away and not is_everybodys(error)
        raise NotStored(str(error), refused=refused) from error


@contextmanager
def unit_of_work() -> Iterator[None]:
    """The outermost transaction of one change, which tells a failed COMMIT from everything before.

    Raises NotStored or OutcomeUnknown as `outcome_told`.
    """
    with outcome_told() as commit, transaction.atomic(durable=True):
        yield
        commit.begun = True


@contextmanager
def joined_unit_of_work() -> Iterator[None]:
    """The open transaction, whose owner commits it; where none is open, a unit of work."""
    with nullcontext() if connection.in_atomic_block else unit_of_work():
        yield


def _refused_by_server(error: DatabaseError | InterfaceError) -> bool:
    """Whether the server said no to COMMIT, and went on: an SQLSTATE that is neither a lost
    connection (08) nor an operator's intervention (57), either of which can come after the commit
    was written; so can the end of the session for another reason (FATAL, PANIC), unless it is that
    the session was idle, and then came COMMIT."""
    sqlstate = sqlstate_of(error)
    if sqlstate == IDLE_TOO_LONG:
        return True
    if not sqlstate or sqlstate.startswith((LOST, "57")):
        return False
    diagnosis = getattr(error.__cause__, "diag", None)
    return getattr(diagnosis, "severity_nonlocalized", None) not in ("FATAL", "PANIC")
