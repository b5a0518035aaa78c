"""The state of lanes: which are paused, which session holds them, and how many events wait in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import OperationalError, transaction

from outbox import operator_log
from outbox.database.ask import rows_of
from outbox.database.errors import is_busy
from outbox.lanes.lock import LANE_WAIT, lock_lanes

__all__ = ["LaneBusy", "LaneState", "UnknownLane", "lane_states", "pause_lanes", "resume_lanes"]

COUNTED = 1000


class LaneBusy(RuntimeError):
    """A drain did not release a lane in time; nothing was changed."""


class UnknownLane(LookupError):
    """There is no such lane; `manage.py lanes list --all` shows all lanes."""


@dataclass(frozen=True, slots=True)
class LaneState:
    """One lane. `pending` is counted up to 1,000; ages in seconds; `holder` is the application name
    and process id of the session that has it locked, empty if none has."""

    lane: int
    paused: bool
    reason: str
    by: str
    at: datetime | None
    pending: int
    oldest_seconds: float
    application: str
    holder: str
    held_seconds: float


def pause_lanes(
    lanes: Sequence[int],
    *,
    reason: str,
    by: str,
    wait: float = LANE_WAIT,
    once: UUID | None = None,
) -> list[int]:
    """Keep drains from claiming these lanes. Returns those that were not paused before.

    Waits up to `wait` seconds for drains that hold them: once this returns, nothing of the lanes
    is sent. It pauses all of them or none. Raises LaneBusy and UnknownLane, and DoneAlready for a form that was sent before.
    """
    return _set_paused(True, lanes, by, reason, wait=wait, once=once)


def resume_lanes(
    lanes: Sequence[int],
    *,
    by: str = "",
    reason: str = "",
    wait: float = LANE_WAIT,
    once: UUID | None = None,
) -> list[int]:
    """Let drains claim these lanes again; returns those that were paused. Raises as pause_lanes."""
    return _set_paused(False, lanes, by, reason, wait=wait, once=once)


def _set_paused(
    paused: bool, lanes: Sequence[int], by: str, why: str, *, wait: float, once: UUID | None
) -> list[int]:
    try:
        with transaction.atomic():
            unknown = set(lanes) - lock_lanes(lanes, wait=wait)
            if unknown:
                raise UnknownLane(f"Lanes {sorted(unknown)}: {UnknownLane.__doc__}")
            rows = rows_of(
                """
                UPDATE outbox_lane SET paused = %s, paused_reason = %s, paused_by = %s,
                    paused_at = CASE WHEN %s THEN clock_timestamp() END
                WHERE lane = ANY(%s) AND paused <> %s RETURNING lane
                """,
                (paused, why if paused else "", by if paused else "", paused, list(lanes), paused),
            )
            changed = sorted(lane for (lane,) in rows)
            what = "pause" if paused else "resume"
            operator_log.note(what, _named(lanes), by=by, why=why, done=len(changed), once=once)
            return changed
    except OperationalError as error:
        if not is_busy(error):
            raise
        holders = {state.holder for state in lane_states() if state.holder and state.lane in lanes}
        raise LaneBusy(
            f"{', '.join(sorted(holders)) or 'A drain'} did not release a lane within {wait:g} s; nothing"
            " was changed. Try again."
        ) from error


def _named(lanes: Sequence[int]) -> str:
    """The lanes in words; consecutive numbers as a range."""
    numbers = sorted(set(lanes))
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"lanes {numbers[0]} to {numbers[-1]}"
    return f"lane{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))}"


def lane_states(*, counted: int = COUNTED) -> list[LaneState]:
    """All lanes in order, without a lock: a row's xmax names the transaction that has locked it.

    `counted`: the bound of the count of pending events in each; with 0 they are not counted.
    """
    rows = rows_of(
        """
        SELECT lane.lane, lane.paused, lane.paused_reason, lane.paused_by, lane.paused_at,
               pending.events,
               coalesce(extract(epoch FROM clock_timestamp() - pending.oldest), 0)::float,
               coalesce(holder.application_name, ''),
               coalesce(holder.application_name || ' (pid ' || holder.pid || ')', ''),
               coalesce(extract(epoch FROM clock_timestamp() - holder.xact_start), 0)::float
        FROM outbox_lane lane
        LEFT JOIN pg_stat_activity holder ON holder.backend_xid = lane.xmax
        CROSS JOIN LATERAL (
            SELECT count(*) AS events, min(created_at) AS oldest
            FROM (SELECT created_at FROM event_outbox
                  WHERE event_outbox.lane = lane.lane AND status = 0
                  ORDER BY id LIMIT %s) first
        ) pending
        ORDER BY lane.lane
        """,
        (counted,),
    )
    return [LaneState(*row) for row in rows]
