"""Which slices are taken next: small posts first, and with every fifth claim the oldest slice of any
kind."""

from __future__ import annotations

from feeds.fanout.slices import LEASE_SECONDS, LEASES, SliceBatch
from feeds.models import SliceKind
from outbox.database.ask import row_of

__all__ = ["SMALL", "SliceClaims"]

SMALL = 500  # followers of a slice that is small
OLDEST_EVERY = 5
# A slice that was begun so often without an end may be what ends its worker. (One whose entries are
# written waits for Redis, and the last of a change of mode waits for the others.)
SUSPECT = 3
SMALL_AT_ONCE = 64
LARGE_AT_ONCE = 2
# Slices of a kind that go into one statement.
_AT_ONCE = {
    SliceKind.POST: SMALL_AT_ONCE,
    SliceKind.DELETE: SMALL_AT_ONCE,
    SliceKind.BACKFILL: 16,
    SliceKind.CLEANUP: SMALL_AT_ONCE,
    SliceKind.STORING: 1,
    SliceKind.STORED: 1,
}
_SOUND = f"tries = 0 AND (begun < {SUSPECT} OR written_at IS NOT NULL OR kind = 'stored')"
# Of each kind the oldest, along the index, and of these the oldest.
_OLDEST = f"""
    SELECT oldest.id, kind, size <= {SMALL}, {_SOUND}
    FROM unnest(%s::text[]) AS kinds (kind)
    CROSS JOIN LATERAL (
        SELECT id, size, tries, begun, written_at, due_at FROM feed_slices
        WHERE feed_slices.kind = kinds.kind AND failed_at IS NULL
          AND due_at <= clock_timestamp()
        ORDER BY due_at LIMIT 1
    ) AS oldest
    ORDER BY due_at LIMIT 1
"""


class SliceClaims:
    """The order in which one process takes slices."""

    def __init__(self) -> None:
        self._number = 0

    def take(self) -> SliceBatch | None:
        """What is to be done next, held; None if nothing is due."""
        self._number += 1
        if self._number % OLDEST_EVERY:
            return self._small_posts() or self._oldest()
        return self._oldest() or self._small_posts()

    def _small_posts(self) -> SliceBatch | None:
        leases = LEASES.claim(
            SMALL_AT_ONCE,
            seconds=LEASE_SECONDS,
            where=f"kind = 'post' AND size <= {SMALL} AND {_SOUND}",
        )
        return SliceBatch(SliceKind.POST, leases) if leases else None

    def _oldest(self) -> SliceBatch | None:
        """The oldest, with others like it where these may go together."""
        row = row_of(_OLDEST, ([kind.value for kind in SliceKind],))
        if row is None:
            return None
        id_, name, is_small, is_sound = row
        kind = SliceKind(name)
        if not is_sound:
            leases = LEASES.claim(1, seconds=LEASE_SECONDS, where="id = %s", parameters=(id_,))
            return SliceBatch(kind, leases, alone=True) if leases else None
        leases = LEASES.claim(
            _AT_ONCE[kind] if is_small else LARGE_AT_ONCE,
            seconds=LEASE_SECONDS,
            where=f"kind = %s AND (size <= {SMALL}) = %s AND {_SOUND}",
            parameters=(kind, is_small),
        )
        return SliceBatch(kind, leases) if leases else None
