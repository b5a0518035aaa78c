"""Floors: the id at which each lane's pending rows begin, so that a drain does not read past
settled rows (docs/outbox.md#the-drain).

No transaction may undercut a floor (guarantees.md#r4): an id becomes one when every transaction that
could hold a lower id has ended. A redrive or a lost log makes rows pending again below the floors that
drains remember. The code that does so increments `outbox_lane.rewinds`, and a floor is valid only
for the count with which it was taken. So does the sweep below the floors, once a minute, for a row
that it finds there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import F

from outbox import metrics
from outbox.conf import DrainPolicy
from outbox.database import jobs
from outbox.database.arrays import array_literal
from outbox.database.ask import row_of, rows_of
from outbox.database.errors import is_transient
from outbox.database.planner import plan_without
from outbox.lanes.lock import lock_lanes
from outbox.models import OutboxLane
from outbox.queries import open_writers
from outbox.topics import LANES

__all__ = ["FLOOR_OF_LANE", "Floors", "rewind"]

# For a statement with a row of outbox_lane at hand; takes the two of Floors.parameters().
FLOOR_OF_LANE = """
    CASE WHEN outbox_lane.rewinds = (%s::bigint[])[outbox_lane.lane + 1]
    THEN (%s::bigint[])[outbox_lane.lane + 1] ELSE 0 END
"""

log = structlog.get_logger("outbox.drain")


@dataclass(frozen=True, slots=True)
class _Ceiling:
    """`id` was the last one drawn, and these transactions may still commit it or a lower one."""

    id: int
    writers: frozenset[str]


class Floors:
    """The floors of one process, which the next process finds again by itself. One thread
    refreshes them, others may read. `sweeps`: look below the floors once a minute; only drains
    do."""

    def __init__(self, *, sweeps: bool = True) -> None:
        self._sweeps = sweeps
        self._lock = threading.Lock()
        self._session: object = None
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            self._floors = [0] * LANES
            self._rewinds = [0] * LANES
        self._ceiling: _Ceiling | None = None
        self._next_look = self._next_sweep = 0.0

    def parameters(self) -> tuple[str, str]:
        """For FLOOR_OF_LANE: the counts of rewinds and the floors, by lane."""
        with self._lock:
            return array_literal(self._rewinds), array_literal(self._floors)

    def refresh(self, policy: DrainPolicy) -> None:
        """Raise the floors, if it is time to; called before a claim, outside its transaction."""
        now = time.monotonic()
        self._forget_other_sessions()
        if now < self._next_look:
            return
        self._next_look = now + policy.floor_interval
        if self._ceiling is not None and not (self._ceiling.writers & open_writers()):
            if self._sweeps and now >= self._next_sweep and any(self._floors):
                self._next_sweep = now + policy.sweep_interval
                self._sweep(policy)
            self._raise_to(self._ceiling.id)
            self._ceiling = None
        if self._ceiling is None:
            # Read the last id first, then the open writers. A writer that takes a higher id
            # later does not matter; one that holds a lower id is in the list or has ended.
            self._ceiling = _Ceiling(_last_id(), open_writers())

    def _forget_other_sessions(self) -> None:
        """Another connection may lead to a server that was set back, where ids begin lower."""
        connection.ensure_connection()
        if connection.connection is not self._session:
            self._forget()
            self._session = connection.connection

    def _sweep(self, policy: DrainPolicy) -> None:
        """Look for pending rows below the floors. A sweep that takes too long is given up; the
        age of the last complete sweep shows that."""
        try:
            below = self._below(policy.sweep_seconds)
        except OperationalError as error:
            if not is_transient(error):
                raise
            log.warning("sweep_given_up", seconds=policy.sweep_seconds, error=str(error))
            return
        for lane, found in below:
            metrics.FLOOR_UNDERCUT.inc()
            log.error("floor_undercut", lane=lane, floor=self._floors[lane], found=found)
        jobs.note_done("sweep")

    def _below(self, seconds: float) -> list[tuple[int, int]]:
        """Lanes with their first pending row, where that lies below the floor; each is rewound."""
        rewinds, floors = self.parameters()
        with transaction.atomic():
            rows_of("SELECT set_config('statement_timeout', %s, true)", (f"{seconds}s",))
            # As a bitmap, page by page: along the index each dead entry costs a visit of its own,
            # and under a snapshot of an hour there are millions.
            plan_without("indexscan", "indexonlyscan", "seqscan")
            below = rows_of(
                """
                WITH below AS MATERIALIZED (
                    SELECT lane, min(id) AS id FROM event_outbox
                    WHERE status = 0 AND id < %s AND id < (%s::bigint[])[lane + 1] GROUP BY lane)
                SELECT lane, below.id FROM below JOIN outbox_lane USING (lane)
                WHERE rewinds = (%s::bigint[])[lane + 1]
                """,
                (max(self._floors), floors, rewinds),
            )
            if below:
                found = [lane for lane, _ in below]
                lock_lanes(found)
                rewind(found)
        return below

    def _raise_to(self, ceiling: int) -> None:
        """The first pending id of each lane up to the ceiling, or the one behind the ceiling.

        A table with more lanes than the code knows is for `compare_lanes` to refuse, in words.
        """
        rewinds, floors = self.parameters()
        rows = rows_of(
            f"""
            SELECT lane, rewinds, coalesce((
                SELECT id FROM event_outbox
                WHERE event_outbox.lane = outbox_lane.lane AND status = 0 AND id <= %s
                  AND id >= {FLOOR_OF_LANE}
                ORDER BY id LIMIT 1
            ), %s + 1)
            FROM outbox_lane WHERE lane < %s ORDER BY lane
            """,
            (ceiling, rewinds, floors, ceiling, LANES),
        )
        with self._lock:
            for lane, rewinds_now, first in rows:
                self._floors[lane], self._rewinds[lane] = first, rewinds_now


def rewind(lanes: Iterable[int]) -> None:
    """Record that these lanes have pending rows below their floors. The caller makes the rows
    pending in the same transaction, which holds the locks of the lanes."""
    OutboxLane.objects.filter(lane__in=list(lanes)).update(rewinds=F("rewinds") + 1)


def _last_id() -> int:
    row = row_of(
        "SELECT coalesce(pg_sequence_last_value("
        "pg_get_serial_sequence('event_outbox', 'id')::regclass), 0)"
    )
    return int(row[0])
