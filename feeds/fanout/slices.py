"""The table of slices as work: leases, beginnings, failures (outbox/database/leases.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from feeds.cache import Entry
from feeds.models import BUCKETS, SliceKind
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import row_of, rows_of
from outbox.database.leases import Lease, Leases
from outbox.database.round_trips import Statement

__all__ = [
    "LEASES",
    "LEASE_SECONDS",
    "MAX_TRIES",
    "OWED",
    "SLICE_FOLLOWERS",
    "Finished",
    "NewSlice",
    "SliceBatch",
    "WrittenSlices",
    "begin_alone",
    "finish",
    "give_up",
    "inserting",
    "of_buckets",
    "try_later",
]

LEASES = Leases(table="feed_slices", due="due_at", number="begun", open="failed_at IS NULL")
LEASE_SECONDS = 30.0  # twice a task's time limit
MAX_TRIES = 5
RETRY_SECONDS = 1.0  # after the first failure; each time twice as long
SLICE_FOLLOWERS = 1000  # followers for whom one slice is cut
ERROR_LENGTH = 500
# Stored and compared: workers of two releases, one beside the other, must write the same words.
NEVER_ENDED = "begun, and its worker did not come back"


@dataclass(frozen=True, slots=True)
class SliceBatch:
    """Slices of one kind, held. `alone`: one that has failed before, or whose worker did not come
    back several times."""

    kind: SliceKind
    leases: Sequence[Lease]
    alone: bool = False

    @property
    def ids(self) -> str:
        """As an array literal."""
        return array_literal(lease.id for lease in self.leases)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSlices:
    """What a batch of slices has written.

    entries  rows that the caches of feeds are to hear of, also where an earlier try has stored them
    as_of    the lowest transaction that the statement which found them may not have seen
    users    whose caches are to be filled again; of posts, their authors
    grown    users whose entries may have outgrown their window
    count    entries written or deleted
    again_in seconds after which the batch is to be tried again, because something else comes first
    """

    entries: Sequence[Entry] = ()
    as_of: int = 0
    users: Sequence[str] = ()
    grown: Sequence[str] = ()
    count: int = 0
    again_in: float = 0.0


class NewSlice(NamedTuple):
    """One row to insert."""

    kind: SliceKind
    author_id: str
    post_id: int | None = None
    follower_id: str | None = None
    follow_number: int | None = None
    bucket_from: int = 0
    bucket_to: int = BUCKETS
    size: int = 1


class Finished(NamedTuple):
    """A slice that is done. `seconds` since its post was accepted (None: it is of no post), and how
    many followers its author has, about."""

    kind: str
    seconds: float | None
    followers: int


# SQL: whether `missing` (post_id, bucket; none: of any follower) is still to come: an open slice owes it,
# or the event that is to be cut into slices. The outbox deletes an event after it is applied; the
# event's id follows from the post's (feeds/events.py).
OWED = """
    EXISTS (
        SELECT FROM feed_slices slice
        WHERE slice.post_id = missing.post_id AND slice.kind = 'post'
          AND (missing.bucket IS NULL
               OR missing.bucket >= slice.bucket_from AND missing.bucket < slice.bucket_to)
    ) OR EXISTS (
        SELECT FROM (SELECT lpad(to_hex(missing.post_id), 16, '0') AS bits) AS of_post
        JOIN event_outbox event ON event.event_id = (
            substr(bits, 1, 8) || '-' || substr(bits, 9, 4) || '-8' || substr(bits, 13, 3)
            || '-8' || substr(bits, 16, 1) || '00-000000000001')::uuid
        WHERE NOT EXISTS (
            SELECT FROM inbox_receipt receipt
            WHERE receipt.event_id = event.event_id AND receipt.handler = 'cut_posts'
              AND receipt.outcome <> 1)
    )
"""

_INSERT = """
    INSERT INTO feed_slices (kind, author_id, post_id, follower_id, follow_number,
                             bucket_from, bucket_to, size)
    SELECT kind, author_id, post_id, nullif(follower_id, ''), follow_number, bucket_from, bucket_to, size
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::bigint[],
                %s::smallint[], %s::smallint[], %s::int[])
        AS slice (kind, author_id, post_id, follower_id, follow_number, bucket_from, bucket_to, size)
"""


def inserting(slices: Sequence[NewSlice]) -> list[Statement]:
    """What stores new slices, due at once; no statement for none."""
    if not slices:
        return []
    kinds, authors, posts, followers, numbers, begins, ends, sizes = zip(*slices, strict=True)
    return [
        (
            _INSERT,
            (
                array_literal(kinds),
                text_array_literal(authors),
                _nullable(posts),
                text_array_literal([follower or "" for follower in followers]),
                _nullable(numbers),
                array_literal(begins),
                array_literal(ends),
                array_literal(sizes),
            ),
        )
    ]


def _nullable(numbers: Sequence[int | None]) -> str:
    return array_literal("NULL" if number is None else number for number in numbers)


def of_buckets(
    kind: SliceKind, author_id: str, followers: int, *, each: int, post_id: int | None = None
) -> list[NewSlice]:
    """Slices that together hold all followers of an author, each about `each` of them. Nobody reads
    the followers for it: their number says into how many ranges of buckets they are cut. At least
    one, whatever the number says, because it lags."""
    pieces = min(BUCKETS, max(1, -(-followers // each)))
    borders = [BUCKETS * piece // pieces for piece in range(pieces + 1)]
    size = max(1, -(-followers // pieces))
    return [
        NewSlice(kind, author_id, post_id, bucket_from=begin, bucket_to=end, size=size)
        for begin, end in pairwise(borders)
    ]


_FINISH = """
    WITH gone AS (
        DELETE FROM feed_slices slice
        USING unnest(%s::bigint[], %s::bigint[]) AS lease (lease_id, lease_number)
        WHERE slice.id = lease_id AND slice.begun = lease_number
        RETURNING slice.kind, slice.post_id, slice.size, slice.bucket_to - slice.bucket_from AS part
    )
    SELECT gone.kind,
           CASE WHEN gone.kind = 'post'
                THEN extract(epoch FROM clock_timestamp() - posts.created_at)::float END,
           CASE WHEN part = 0 THEN -1 ELSE gone.size * %s / part END
    FROM gone LEFT JOIN posts ON posts.id = gone.post_id
"""


def finish(leases: Sequence[Lease]) -> list[Finished]:
    """Delete the slices that are still held, once entries and caches are done; returns them."""
    held = sorted(leases, key=lambda lease: lease.id)
    return [
        Finished(*row)
        for row in rows_of(
            _FINISH,
            (
                array_literal(lease.id for lease in held),
                array_literal(lease.number for lease in held),
                BUCKETS,
            ),
        )
    ]


def try_later(leases: Sequence[Lease], seconds: float, *, written: bool = False) -> None:
    """The slices are not the cause, or something else comes first: try them again after
    `seconds`. `written`: their entries are committed, and only the caches have not
    confirmed."""
    mark = ", written_at = coalesce(held.written_at, clock_timestamp())" if written else ""
    LEASES.write_back(
        leases,
        f"due_at = clock_timestamp() + make_interval(secs => %s), error = ''{mark}",
        (seconds,),
    )


def begin_alone(lease: Lease) -> bool:
    """Note that the slice begins, before it does; returns whether it may. A note that is
    already there belongs to an attempt that never ended, and counts as a failure."""
    row = row_of("SELECT error FROM feed_slices WHERE id = %s", (lease.id,))
    if row is None or (row[0] == NEVER_ENDED and give_up(lease, NEVER_ENDED)):
        return False
    held = LEASES.write_back(
        [lease],
        "error = %s, due_at = clock_timestamp() + make_interval(secs => %s)",
        (NEVER_ENDED, LEASE_SECONDS),
    )
    return bool(held)


def give_up(lease: Lease, error: str) -> bool:
    """The slice failed by itself: try again after a while, or wait for an operator from the fifth
    time on; whether it does now."""
    row = row_of(
        """
        UPDATE feed_slices
        SET tries = tries + 1, error = %s,
            failed_at = CASE WHEN tries + 1 >= %s THEN clock_timestamp() END,
            due_at = clock_timestamp() + make_interval(secs => %s * 2 ^ tries)
        WHERE id = %s AND begun = %s AND failed_at IS NULL
        RETURNING failed_at IS NOT NULL
        """,
        (error[:ERROR_LENGTH], MAX_TRIES, RETRY_SECONDS, lease.id, lease.number),
    )
    return bool(row and row[0])
