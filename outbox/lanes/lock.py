"""Locks lanes until the transaction ends, always in the same order, so that two transactions never wait for
each other."""

from __future__ import annotations

from collections.abc import Collection

from outbox.database.ask import rows_of
from outbox.database.planner import limit_lock_waits

__all__ = ["LANE_WAIT", "lock_all_lanes", "lock_lanes"]

# Seconds. Longer than the 8 s after which PostgreSQL takes a lane from a drain that hangs.
LANE_WAIT = 10.0


def lock_lanes(lanes: Collection[int], *, wait: float | None = None) -> set[int]:
    """Wait for the drains that hold these lanes, and keep others out; returns those lanes that exist.

    Waits at most `wait` seconds for each lane, or as long as the session does. Raises
    OperationalError with SQLSTATE 55P03 after that.
    """
    if wait is not None:
        limit_lock_waits(wait)
    rows = rows_of(
        "SELECT lane FROM outbox_lane WHERE lane = ANY(%s) ORDER BY lane FOR UPDATE",
        (list(lanes),),
    )
    return {row[0] for row in rows}


def lock_all_lanes() -> None:
    """The same for every lane of the table, also while Kafka is asked: the transaction may be idle
    for longer than the session allows others."""
    limit_lock_waits(15.0)
    rows_of("SELECT set_config('idle_in_transaction_session_timeout', '10min', true)")
    rows_of("SELECT FROM outbox_lane ORDER BY lane FOR UPDATE")
