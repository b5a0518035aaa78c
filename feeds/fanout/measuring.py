"""How the slices stand: gauges, the hop of the fan-out, and the list of those that failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from feeds import metrics
from feeds.fanout.nudge import nudge
from feeds.ids import first_id_at
from feeds.models import FeedSlice
from outbox.database.arrays import array_literal
from outbox.database.ask import changed_by, row_of
from outbox.watching import Hop

__all__ = ["failed_slices", "hops", "measure", "posts_between", "retry"]

COUNTED = 100_000  # at most: more is as bad
COUNTED_FOR_A_PAGE = 10_000


def measure() -> None:
    """Set the gauges."""
    waiting, oldest, failed, _ = _standing(COUNTED)
    metrics.SLICES_WAITING.set(waiting)
    metrics.OLDEST_SLICE.set(oldest)
    metrics.SLICES_FAILED.set(failed)
    metrics.MEASURED.set_to_current_time()


def hops() -> Sequence[Hop]:
    """The fan-out: pieces of posts on their way into the feeds of followers."""
    waiting, oldest, failed, deleted = _standing(COUNTED_FOR_A_PAGE)
    return [
        Hop(
            name="fan-out",
            group="feeds",
            waits=waiting,
            counted=COUNTED_FOR_A_PAGE,
            oldest=oldest,
            done=deleted,
            unit="slices",
            figures={
                "feed_fanout_slices_failed": failed,
                "feed_fanout_oldest_slice_seconds": oldest,
            },
            page="/admin/feeds/feedslice/",
        )
    ]


def _standing(counted: int) -> tuple[int, float, int, int]:
    """How many wait, the age of the oldest in seconds, how many have failed, and how many were deleted since the
    statistics of PostgreSQL began: a slice that is done is deleted."""
    waiting, oldest, failed, deleted = row_of(
        """
        SELECT (SELECT count(*) FROM (SELECT FROM feed_slices WHERE failed_at IS NULL LIMIT %s) AS open),
               (SELECT extract(epoch FROM clock_timestamp() - created_at)::float
                FROM feed_slices WHERE failed_at IS NULL ORDER BY id LIMIT 1),
               (SELECT count(*) FROM (SELECT FROM feed_slices WHERE failed_at IS NOT NULL LIMIT %s) AS failed),
               pg_stat_get_tuples_deleted('feed_slices'::regclass)
        """,
        (counted, counted),
    )
    return waiting, max(0.0, oldest or 0.0), failed, deleted


def posts_between(begin: datetime, end: datetime) -> int:
    """Posts of which the id was drawn in this time, counted up to 100,000 by their ids, which begin
    with the time."""
    [made] = row_of(
        "SELECT count(*) FROM (SELECT FROM posts WHERE id >= %s AND id < %s LIMIT %s) AS made",
        (first_id_at(begin), first_id_at(end), COUNTED),
    )
    return int(made)


def failed_slices(limit: int) -> Sequence[FeedSlice]:
    """Those that wait for an operator, the oldest failure first."""
    failed = FeedSlice.objects.filter(failed_at__isnull=False).order_by("failed_at", "id")
    return list(failed[:limit])


def retry(ids: Sequence[int] | None) -> int:
    """Have failed slices tried again from the start, all or those with these ids; how many."""
    count = changed_by(
        """
        UPDATE feed_slices SET failed_at = NULL, tries = 0, error = '', due_at = clock_timestamp()
        WHERE failed_at IS NOT NULL AND (%s::bigint[] IS NULL OR id = ANY(%s::bigint[]))
        """,
        (chosen := None if ids is None else array_literal(ids), chosen),
    )
    nudge()
    return count
