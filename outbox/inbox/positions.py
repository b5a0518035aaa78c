"""Positions and receipts: what a handler has applied, and what a chunk must match to be applied.

Everything here but `read_positions`, `step_over` and `record_*` runs inside the transaction of the effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from outbox.database.ask import changed_by, rows_of
from outbox.database.planner import limit_lock_waits
from outbox.inbox.chunk import Chunk
from outbox.inbox.time_limit import transaction_limit
from outbox.kafka.admin import TopicState
from outbox.models import CLOCK, BridgePosition
from outbox.topics import PartitionKey

__all__ = [
    "EFFECT_WAIT",
    "Position",
    "Step",
    "Tally",
    "adopt_topic",
    "advance_positions",
    "create_positions",
    "forget_start",
    "free_positions",
    "lock_all_positions",
    "lock_positions",
    "move_positions",
    "note_letters",
    "note_start",
    "read_positions",
    "record_failure",
    "record_retry",
    "row_at",
    "step_over",
    "topic_ids_of",
]

# Seconds. Longer than the transaction of an effect may take.
EFFECT_WAIT = 10.0

# For UPDATE bridge_position: the chunk at the position has not been tried yet.
_RESET = """attempts = 0, last_error = '', failed_at = NULL, started_next = NULL, started_tries = 0,
                updated_at = clock_timestamp()"""


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


_COLUMNS = ", ".join(f'"{each.name}"' for each in fields(Position))
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

    `limited`: from here on the transaction may take no longer than an effect (outbox/inbox/time_limit.py).
    Raises OperationalError with SQLSTATE 55P03 if another transaction holds one of them. What is
    read is the newest version of each row, also of one that another has just changed.
    """
    # Both in one statement, which saves a round trip for each chunk.
    columns, limit = _COLUMNS, []
    if limited:
        limits, seconds = transaction_limit()
        columns, limit = f"{_COLUMNS}, {limits}", [seconds]
    sql = (
        f"SELECT {columns} FROM bridge_position"
        f' WHERE handler = %s AND {_THESE} ORDER BY topic, "partition" FOR UPDATE'
    )
    if not wait:
        return _select(f"{sql} NOWAIT", handler, keys, *limit)
    limit_lock_waits(wait)
    positions = _select(sql, handler, keys, *limit)
    # The limit is for the positions alone, not for locks of the effect.
    changed_by("SET LOCAL lock_timeout TO DEFAULT")
    return positions


def free_positions(handler: str, keys: Iterable[PartitionKey]) -> dict[PartitionKey, Position]:
    """The positions among `keys` that no other transaction holds now, as they are now.

    The query locks them itself for a moment. A transaction that tries to lock one at that moment finds it
    busy; an effect then waits for it. The transaction is rolled back, because it changes nothing and a COMMIT
    of row locks would be written to disk.
    """
    with transaction.atomic():
        found = _select(
            f"SELECT {_COLUMNS} FROM bridge_position"
            f" WHERE handler = %s AND {_THESE} FOR UPDATE SKIP LOCKED",
            handler,
            keys,
        )
        transaction.set_rollback(True)
    return found


def lock_all_positions(handler: str) -> None:
    """Lock every position of the handler, in sorted order: no effect of it runs until the transaction
    ends. Raises as lock_positions; see `limit_lock_waits`."""
    rows_of(
        'SELECT FROM bridge_position WHERE handler = %s ORDER BY topic, "partition" FOR UPDATE',
        (handler,),
    )


def _select(
    sql: str, handler: str, keys: Iterable[PartitionKey], *first: str
) -> dict[PartitionKey, Position]:
    topics, partitions = _columns(keys)
    rows = rows_of(sql, (*first, handler, topics, partitions))
    positions = [Position(*row[:_WIDTH]) for row in rows]
    return {position.partition_key: position for position in positions}


def _columns(keys: Iterable[PartitionKey]) -> tuple[list[str], list[int]]:
    pairs = list(keys)
    return [topic for topic, _ in pairs], [partition for _, partition in pairs]


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcomes of the events of one chunk; followers of a parked key count only as parked."""

    applied: int
    failed: int = 0
    parked: int = 0


def advance_positions(handler: str, chunks: Sequence[Chunk], tallies: Sequence[Tally] = ()) -> None:
    """Move the locked positions behind the chunks: the confirmation, if the transaction commits.

    The same statement counts the failures of a partition: in a row, and among its last hundred outcomes
    (older ones fade). Without `tallies` every event of the chunks was applied.
    """
    tallies = tallies or [Tally(len(chunk.events)) for chunk in chunks]
    topics, partitions = _columns(chunk.partition_key for chunk in chunks)
    changed_by(
        f"""
        UPDATE bridge_position
        SET next_offset = done.next_offset, {_RESET},
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


def row_at(handler: str, key: PartitionKey) -> QuerySet[BridgePosition]:
    """The row of one position."""
    return BridgePosition.objects.filter(handler=handler, topic=key[0], partition=key[1])


def note_start(handler: str, key: PartitionKey, next_offset: int | None, tries: int) -> None:
    """Write that effects from the locked position up to `next_offset` are about to begin."""
    row_at(handler, key).update(started_next=next_offset, started_tries=tries)


def forget_start(handler: str, key: PartitionKey) -> None:
    """Delete that note: the effect failed, and the process survived."""
    note_start(handler, key, None, 0)


def record_failure(handler: str, chunk: Chunk, error: str) -> None:
    """Write the error for the bridge and the admin, unless the position has moved since."""
    row = row_at(handler, chunk.partition_key).filter(next_offset__lt=chunk.next_offset)
    row.update(last_error=error[:2000], failed_at=CLOCK)


@dataclass(frozen=True, slots=True)
class Step:
    """States that the log of `topic_id` holds no message from offset `old` up to `new`, only markers of
    transactions, aborted messages or gaps of compaction."""

    key: PartitionKey
    topic_id: UUID
    old: int
    new: int


def step_over(handler: str, steps: Sequence[Step]) -> set[PartitionKey]:
    """Move positions over offsets without messages. Returns the partitions whose position was moved. A
    position that is locked, is no longer at `old` or belongs to another log stays.

    No event is skipped: those offsets held nothing to apply, and messages are only added at the end of a log.
    """
    topics, partitions = _columns(step.key for step in steps)
    rows = rows_of(
        """
        WITH free AS (
            SELECT position.id, step.new
            FROM unnest(%s::text[], %s::smallint[], %s::uuid[], %s::bigint[], %s::bigint[])
                 AS step (topic, "partition", topic_id, old, new)
            JOIN bridge_position position
              ON position.handler = %s AND position.topic = step.topic
             AND position."partition" = step."partition" AND position.topic_id = step.topic_id
             AND position.next_offset = step.old
            FOR UPDATE OF position SKIP LOCKED
        )
        UPDATE bridge_position SET next_offset = free.new, updated_at = clock_timestamp()
        FROM free WHERE bridge_position.id = free.id
        RETURNING topic, "partition"
        """,
        (
            topics,
            partitions,
            [step.topic_id for step in steps],
            [step.old for step in steps],
            [step.new for step in steps],
            handler,
        ),
    )
    return set(rows)


def record_retry(handler: str, keys: Iterable[PartitionKey]) -> None:
    """Count one more attempt at the chunks that start at these positions."""
    topics, partitions = _columns(keys)
    changed_by(
        f"UPDATE bridge_position SET attempts = attempts + 1 WHERE handler = %s AND {_THESE}",
        (handler, topics, partitions),
    )


def note_letters(handler: str, keys: Iterable[PartitionKey]) -> None:
    """Mark these partitions as ones with open dead letters; chunks then ask for parked keys."""
    changed_by(
        f"UPDATE bridge_position SET letters_open = true WHERE handler = %s AND {_THESE}",
        (handler, *_columns(keys)),
    )


def create_positions(handler: str, topic: TopicState, *, since: str) -> int:
    """Write the positions from which a new handler starts (`earliest` or `now`). Returns how many were
    missing. Existing positions stay as they are."""
    start = topic.earliest if since == "earliest" else topic.latest
    return changed_by(
        """
        INSERT INTO bridge_position
            (handler, topic, topic_id, "partition", next_offset, start_offset)
        SELECT %s, %s, %s, "partition", next_offset, next_offset
        FROM unnest(%s::smallint[], %s::bigint[]) AS start ("partition", next_offset)
        ON CONFLICT (handler, topic, "partition") DO NOTHING
        """,
        (handler, topic.name, topic.topic_id, list(start), list(start.values())),
    )


def topic_ids_of(handler: str, topic: str) -> set[UUID]:
    """Ids of the logs that the handler's positions on a topic belong to; more than one is damage."""
    rows = BridgePosition.objects.filter(handler=handler, topic=topic)
    return set(rows.values_list("topic_id", flat=True))


def move_positions(
    handler: str,
    topic: str,
    offsets: Mapping[int, int],
    *,
    also: str = "",
    where: str = "true",
    parameters: Sequence[Any] = (),
) -> int:
    """Put positions at these offsets, by partition; returns how many. The chunks there count as not tried.
    `also`: further columns to set, which begin with a comma; `where`: a condition, with its parameters;
    both are SQL of the code and may name target."offset"."""
    return changed_by(
        f"""
        UPDATE bridge_position SET next_offset = target."offset", {_RESET} {also}
        FROM unnest(%s::smallint[], %s::bigint[]) AS target ("partition", "offset")
        WHERE handler = %s AND topic = %s AND bridge_position."partition" = target."partition"
          AND {where}
        """,
        (list(offsets), list(offsets.values()), handler, topic, *parameters),
    )


def adopt_topic(handler: str, topic: TopicState) -> None:
    """Move the handler's positions to the end of a recreated topic's log. They began in an older log
    (`start_offset` -1), so no offset of this log lies before their start. Positions of partitions that the
    topic no longer has stay for their dead letters; they are put at offset 0, in case the partition comes
    back."""
    changed_by(
        f"""
        UPDATE bridge_position
        SET topic_id = %s, start_offset = -1, {_RESET},
            next_offset = coalesce((
                SELECT latest FROM unnest(%s::smallint[], %s::bigint[])
                    AS log ("partition", latest)
                WHERE log."partition" = bridge_position."partition"), 0)
        WHERE handler = %s AND topic = %s
        """,
        (
            topic.topic_id,
            list(topic.latest),
            list(topic.latest.values()),
            handler,
            topic.name,
        ),
    )
