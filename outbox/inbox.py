"""Positions and receipts: what a handler has applied, and what a chunk must match to be applied.

Everything here but `read_positions` and `record_*` runs inside the transaction of the effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from django.db import connection

from outbox.arrays import array_literal
from outbox.chunks import Chunk
from outbox.failures import transaction_limit
from outbox.kafka.admin import TopicState
from outbox.models import InboxReceipt
from outbox.topics import PartitionKey

__all__ = [
    "Position",
    "Tally",
    "adopt_topic",
    "advance_positions",
    "create_positions",
    "forget_start",
    "insert_receipts",
    "lock_positions",
    "note_start",
    "read_positions",
    "record_failure",
    "record_retry",
    "settle_receipts",
    "topic_ids_of",
]


@dataclass(frozen=True, slots=True)
class Position:
    """One row of bridge_position as it was read."""

    topic: str
    partition: int
    topic_id: UUID
    next_offset: int
    attempts: int
    paused: bool
    failed_at: datetime | None
    letters_open: bool
    started_next: int | None
    started_tries: int

    @property
    def partition_key(self) -> PartitionKey:
        """(topic, partition)."""
        return self.topic, self.partition


_COLUMNS = (
    'topic, "partition", topic_id, next_offset, attempts, paused, failed_at,'
    " letters_open, started_next, started_tries"
)
_WIDTH = len(fields(Position))
_THESE = '(topic, "partition") IN (SELECT * FROM unnest(%s::text[], %s::smallint[]))'


def read_positions(handler: str, keys: Iterable[PartitionKey]) -> dict[PartitionKey, Position]:
    """The positions there are among `keys`, without a lock."""
    return _select(
        f"SELECT {_COLUMNS} FROM bridge_position WHERE handler = %s AND {_THESE}", handler, keys
    )


def lock_positions(
    handler: str, keys: Iterable[PartitionKey], *, wait: float = 0.0, limited: bool = False
) -> dict[PartitionKey, Position]:
    """The same under FOR UPDATE, locked in sorted order, waiting at most `wait` seconds for each.

    `limited`: from here on the transaction may take no longer than an effect, see failures.py.
    Raises OperationalError with SQLSTATE 55P03 if another transaction holds one of them. What is
    read is the newest version of each row, also of one that another has just changed.
    """
    # In the same statement: one round trip less for each chunk.
    limit = transaction_limit() if limited else ()
    sql = (
        f"SELECT {_COLUMNS}{', set_config(%s, %s, true)' if limit else ''} FROM bridge_position"
        f' WHERE handler = %s AND {_THESE} ORDER BY topic, "partition" FOR UPDATE'
    )
    if not wait:
        return _select(f"{sql} NOWAIT", handler, keys, *limit)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(wait * 1000)}ms",))
        positions = _select(sql, handler, keys, *limit)
        cursor.execute(
            "SET LOCAL lock_timeout TO DEFAULT"
        )  # the effect's own waits are another matter
    return positions


def _select(
    sql: str, handler: str, keys: Iterable[PartitionKey], *first: str
) -> dict[PartitionKey, Position]:
    topics, partitions = _columns(keys)
    with connection.cursor() as cursor:
        cursor.execute(sql, (*first, handler, topics, partitions))
        positions = [Position(*row[:_WIDTH]) for row in cursor.fetchall()]
    return {position.partition_key: position for position in positions}


def _columns(keys: Iterable[PartitionKey]) -> tuple[list[str], list[int]]:
    pairs = list(keys)
    return [topic for topic, _ in pairs], [partition for _, partition in pairs]


def insert_receipts(
    handler: str, event_ids: Iterable[UUID], outcome: int = InboxReceipt.Outcome.APPLIED
) -> set[UUID]:
    """Write a receipt for each event that has none; returns the ids that were new.

    Sorted, so that two transactions meet in the same order and cannot deadlock. Told by PostgreSQL
    are those that had one: nearly always none.
    """
    new = set(event_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS (
                SELECT unnest(%s::uuid[]) AS event_id
            ), written AS (
                INSERT INTO inbox_receipt (event_id, handler, outcome)
                SELECT event_id, %s, %s::smallint FROM given ORDER BY event_id
                ON CONFLICT (event_id, handler) DO NOTHING
                RETURNING event_id
            )
            SELECT event_id FROM given WHERE event_id NOT IN (SELECT event_id FROM written)
            """,
            (array_literal(event_id.hex for event_id in new), handler, outcome),
        )
        there = {event_id for (event_id,) in cursor.fetchall()}
    if not there <= new:  # ids that do not compare: each of them would pass for a new one
        raise TypeError(f"receipts of {there - new} are told, and nobody asked for them")
    return new - there


def settle_receipts(handler: str, event_ids: Iterable[UUID], outcome: int) -> set[UUID]:
    """Turn parked receipts into applied or discarded ones; returns the ids for which that was
    done here. Others have been applied or discarded by somebody else: no effect may follow.

    A receipt that is missing altogether is written: nobody has applied its event.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO inbox_receipt AS receipt (event_id, handler, outcome)
            SELECT event_id, %s, %s::smallint FROM unnest(%s::uuid[]) AS event (event_id)
            ORDER BY event_id
            ON CONFLICT (event_id, handler)
            DO UPDATE SET outcome = excluded.outcome, applied_at = clock_timestamp()
            WHERE receipt.outcome = %s
            RETURNING event_id
            """,
            (handler, outcome, list(event_ids), InboxReceipt.Outcome.PARKED),
        )
        return {row[0] for row in cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the events of one chunk; followers of a parked key count as parked alone."""

    applied: int
    failed: int = 0
    parked: int = 0


def advance_positions(handler: str, chunks: Sequence[Chunk], tallies: Sequence[Tally] = ()) -> None:
    """Move the locked positions behind the chunks: the confirmation, if the transaction commits.

    The failures of a partition are counted beside: in a row, and among its last hundred outcomes
    (older ones fade). Without `tallies` every event of the chunks was applied.
    """
    tallies = tallies or [Tally(len(chunk.events)) for chunk in chunks]
    topics, partitions = _columns(chunk.partition_key for chunk in chunks)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE bridge_position
            SET next_offset = done.next_offset, attempts = 0, last_error = '', failed_at = NULL,
                updated_at = clock_timestamp(), started_next = NULL, started_tries = 0,
                letters_open = letters_open OR done.failed + done.parked > 0,
                failure_run = CASE WHEN done.failed > 0 THEN failure_run + done.failed
                                   WHEN done.applied > 0 THEN 0 ELSE failure_run END,
                failures = failures * done.kept + done.failed,
                outcomes = least(100, outcomes * done.kept + done.applied + done.failed),
                failing_since = CASE WHEN done.failed > 0 THEN coalesce(failing_since, now())
                                     WHEN failures * done.kept >= 1 THEN failing_since END
            FROM (
                SELECT *, 1 - least(100, applied + failed) / 100.0::float8 AS kept
                FROM unnest(%s::text[], %s::smallint[], %s::bigint[], %s::int[], %s::int[],
                            %s::int[])
                     AS chunk (topic, "partition", next_offset, applied, failed, parked)
            ) AS done
            WHERE handler = %s AND bridge_position.topic = done.topic
              AND bridge_position."partition" = done."partition"
            """,
            (
                topics,
                partitions,
                [chunk.next_offset for chunk in chunks],
                [tally.applied for tally in tallies],
                [tally.failed for tally in tallies],
                [tally.parked for tally in tallies],
                handler,
            ),
        )


def note_start(handler: str, key: PartitionKey, next_offset: int, tries: int) -> None:
    """Say that effects from the locked position up to `next_offset` are about to begin."""
    _note_start(handler, key, next_offset, tries)


def forget_start(handler: str, key: PartitionKey) -> None:
    """Take that back: the process is alive, something else went wrong."""
    _note_start(handler, key, None, 0)


def _note_start(handler: str, key: PartitionKey, next_offset: int | None, tries: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE bridge_position SET started_next = %s, started_tries = %s
            WHERE handler = %s AND topic = %s AND "partition" = %s
            """,
            (next_offset, tries, handler, *key),
        )


def record_failure(handler: str, chunk: Chunk, error: str) -> None:
    """Leave a word for the bridge and the admin, unless the position has moved on since."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE bridge_position SET last_error = %s, failed_at = clock_timestamp()
            WHERE handler = %s AND topic = %s AND "partition" = %s AND next_offset < %s
            """,
            (error[:2000], handler, chunk.topic, chunk.partition, chunk.next_offset),
        )


def record_retry(handler: str, keys: Iterable[PartitionKey]) -> None:
    """Count one more attempt at the chunks that start at these positions."""
    topics, partitions = _columns(keys)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE bridge_position SET attempts = attempts + 1 WHERE handler = %s AND {_THESE}",
            (handler, topics, partitions),
        )


def create_positions(handler: str, topic: TopicState, *, since: str) -> int:
    """Write the positions a new handler starts from (`earliest` or `now`); returns how many were
    missing. Existing ones stay as they are."""
    start = topic.earliest if since == "earliest" else topic.latest
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO bridge_position
                (handler, topic, topic_id, "partition", next_offset, start_offset)
            SELECT %s, %s, %s, "partition", next_offset, next_offset
            FROM unnest(%s::smallint[], %s::bigint[]) AS start ("partition", next_offset)
            ON CONFLICT (handler, topic, "partition") DO NOTHING
            """,
            (handler, topic.name, topic.topic_id, list(start), list(start.values())),
        )
        return int(cursor.rowcount)


def topic_ids_of(handler: str, topic: str) -> set[UUID]:
    """Ids of the logs that the handler's positions on a topic belong to; more than one is damage."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT topic_id FROM bridge_position WHERE handler = %s AND topic = %s",
            (handler, topic),
        )
        return {row[0] for row in cursor.fetchall()}


def adopt_topic(handler: str, topic: TopicState) -> None:
    """Put the handler's positions at the end of a log that was made anew. They began in an older
    one (`start_offset` -1), so no offset of this one lies before their start."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE bridge_position
            SET topic_id = %s, next_offset = log.latest, start_offset = -1,
                attempts = 0, last_error = '', failed_at = NULL, updated_at = clock_timestamp(),
                started_next = NULL, started_tries = 0
            FROM unnest(%s::smallint[], %s::bigint[]) AS log ("partition", latest)
            WHERE handler = %s AND topic = %s AND bridge_position."partition" = log."partition"
            """,
            (
                topic.topic_id,
                list(topic.latest),
                list(topic.latest.values()),
                handler,
                topic.name,
            ),
        )
