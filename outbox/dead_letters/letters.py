"""The rows of dead letters: parking, resolving, and the message on the dead letter topic.

Every function here runs in the caller's transaction, which holds the lock of the position
(handlers) or of the lane (the drain) wherever the order of a key depends on it (guarantees.md#r12).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from outbox import metrics
from outbox.conf import REDRIVE
from outbox.database.ask import changed_by, rows_of
from outbox.database.leases import Leases
from outbox.dead_letters.dlq_message import bounded_trace, dlq_headers, dlq_message, dlq_topics
from outbox.dead_letters.letter import Letter, Place, State
from outbox.declaration import Route
from outbox.envelope import from_column, to_column
from outbox.models import DeadLetter
from outbox.publish.events import publish

__all__ = [
    "ERROR_LENGTH",
    "LEASES",
    "NEVER_ENDED",
    "backoff",
    "bury",
    "head_of",
    "lock_letters",
    "park",
    "parked_keys",
    "resolve",
    "try_again",
]

# A letter is tried under a lease, whose number is the count of its attempts.
LEASES = Leases(table="dead_letter", due="next_attempt_at", number="attempts", open="state = 0")
NEVER_ENDED = "The process ended or reached its time limit while it applied this event."
ERROR_LENGTH = 4000


def backoff(route: Route, attempts: int) -> float:
    """Seconds to wait after that many attempts, plus or minus a fifth."""
    delays = route.retries
    delay = delays[min(max(attempts, 1), len(delays)) - 1]
    return delay * random.uniform(1 - REDRIVE.jitter, 1 + REDRIVE.jitter)  # noqa: S311


# -- parking --------------------------------------------------------------------------------


def parked_keys(handler: str, places: Iterable[Place]) -> set[Place]:
    """The places among these that have an open dead letter of the handler.

    A statement of its own after the position is locked: its snapshot sees all that the last
    holder of the lock committed.
    """
    wanted = {(topic, partition, to_column(key)) for topic, partition, key in places}
    if not wanted:
        return set()
    names, partitions, keys = zip(*sorted(wanted), strict=True)
    rows = rows_of(
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
    return {(topic, partition, from_column(key)) for topic, partition, key in rows}


_INSERT = """
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
    RETURNING event_id, failed_at
"""


def park(letters: Sequence[Letter], *, delay: float = 0.0, announce: bool = False) -> None:
    """Write letters in the order given, one statement for all; the retrying ones are due after
    `delay` seconds. `announce`: with one message on `<topic>.dlq` for each that is dead."""
    columns = zip(*map(_row, letters), strict=True)
    failed_at = dict(rows_of(_INSERT, (delay, *map(list, columns))))
    for letter in letters:
        metrics.PARKED.labels(letter.handler).inc()
    if announce:
        _announce([letter for letter in letters if letter.state == State.DEAD], failed_at)


def _row(letter: Letter) -> tuple[Any, ...]:
    event = letter.event
    texts = (
        event.key,
        event.type,
        event.source,
        event.time,
        event.payload,
        event.trace.traceparent,
        event.trace.correlation_id,
        letter.error[:ERROR_LENGTH],
    )
    return (
        letter.handler,
        event.event_id,
        event.topic,
        letter.topic_id,
        letter.partition,
        letter.offset,
        *map(to_column, texts),
        int(letter.state),
        letter.attempts,
    )


# -- resolving ------------------------------------------------------------------------------


def lock_letters(**which: Any) -> list[Letter]:
    """The open ones among these rows (conditions of the ORM), locked, in order."""
    rows = DeadLetter.objects.filter(state__lt=State.APPLIED).filter(**which)
    return [Letter.of(row) for row in rows.order_by("id").select_for_update()]


def head_of(handler: str, place: Place, *, limit: int = 1) -> list[Letter]:
    """The first open letters of a key, in order."""
    topic, partition, key = place
    column = to_column(key)
    rows = DeadLetter.objects.raw(
        """
        SELECT * FROM dead_letter
        WHERE handler = %s AND topic = %s AND md5(key) = md5(%s) AND key = %s AND state < 3
          AND "partition" = %s
        ORDER BY id LIMIT %s
        """,
        (handler, topic, column, column, partition, limit),
    )
    return [Letter.of(row) for row in rows]


def resolve(ids: Iterable[int], state: int, *, by: str, note: str = "") -> None:
    """Close letters as applied or discarded. There may be more than a statement can have parameters (65,535),
    so their ids are one of them."""
    changed_by(
        """
        UPDATE dead_letter SET state = %s, resolved_at = clock_timestamp(), resolved_by = %s, note = %s,
            next_attempt_at = NULL
        WHERE id = ANY(%s) AND state < 3
        """,
        (int(state), by, note, list(ids)),
    )


def try_again(where: str, parameters: Sequence[Any]) -> int:
    """Make letters due now, with all their attempts; returns how many. `where`: SQL, a condition of them."""
    return changed_by(
        f"""
        UPDATE dead_letter SET state = 0, attempts = 0, next_attempt_at = clock_timestamp(),
            replay_count = replay_count + (state = 2)::int
        WHERE {where}
        """,
        parameters,
    )


def bury(letters: Sequence[Letter], *, whole: bool = True) -> None:
    """Make open letters dead, and publish one message for each on `<topic>.dlq`.

    `whole`: with the event's value where it fits.
    """
    rows = rows_of(
        """
        UPDATE dead_letter SET state = 2, next_attempt_at = NULL, error = last.error,
            failed_at = clock_timestamp()
        FROM unnest(%s::bigint[], %s::text[]) AS last (id, error)
        WHERE dead_letter.id = last.id
        RETURNING event_id, failed_at
        """,
        (
            [letter.id for letter in letters],
            [to_column(letter.error[:ERROR_LENGTH]) for letter in letters],
        ),
    )
    _announce(letters, dict(rows), whole=whole)


# -- the message on the dead letter topic ---------------------------------------------------


def _announce(
    letters: Sequence[Letter], failed_at: Mapping[UUID, datetime], *, whole: bool = True
) -> None:
    """Those of known topics; `failed_at` by event, of the letters that were written."""
    known = dlq_topics()
    written = [(letter, failed_at.get(letter.event.event_id)) for letter in letters]
    pairs = [
        (each, dlq_headers(each, at)) for each, at in written if at and each.event.topic in known
    ]
    publish(
        [dlq_message(letter, each, whole) for letter, each in pairs],
        traces=[bounded_trace(letter.event.trace) for letter, _ in pairs],
        headers=[each for _, each in pairs],
    )
