"""Claiming lanes: locking those whose events may be sent now.

Two claims never hold rows of the same lane (guarantees.md#r3). A claim lasts as long as its transaction.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.models.expressions import RawSQL

from outbox.lanes.floors import Floors
from outbox.lanes.pending import PENDING, pending_parameters
from outbox.models import OutboxLane
from outbox.topics import LANES

__all__ = ["LaneMismatch", "claim_lanes", "compare_lanes"]


class LaneMismatch(RuntimeError):
    """The table outbox_lane and LANES in the code differ."""


def compare_lanes() -> None:
    """Compare the table of lanes with the code. Raises LaneMismatch. Read at each connect,
    because rows of a missing lane would wait for ever."""
    found = set(OutboxLane.objects.values_list("lane", flat=True))
    if found != set(range(LANES)):
        raise LaneMismatch(
            f"outbox_lane holds {len(found)} lanes, the code expects {LANES}, and the order of a key"
            " depends on the number. Set LANES back; or drain the outbox, stop all writers and drains,"
            " change LANES, empty outbox_lane and run `manage.py migrate`, which fills it."
        )


def claim_lanes(
    limit: int, *, floors: Floors, left_out: Collection[tuple[str, str]] = ()
) -> list[int]:
    """Lock up to `limit` lanes that have pending events, the longest waiting first; until the
    transaction ends.

    Lanes that another drain holds are skipped. A lane with nothing but refused keys or unknown topics
    is not claimed, nor is a paused one; PostgreSQL checks that again once it has the lock."""
    first_pending = RawSQL(  # noqa: S611  (no text of anybody else)
        f"""(SELECT id FROM event_outbox WHERE event_outbox.lane = outbox_lane.lane AND {PENDING}
             ORDER BY id LIMIT 1)""",
        pending_parameters(floors, left_out),
    )
    lanes = (
        OutboxLane.objects.select_for_update(skip_locked=True, of=("self",))
        .annotate(first_pending=first_pending)
        .filter(first_pending__isnull=False, paused=False)
        .order_by("first_pending")
    )
    return list(lanes.values_list("lane", flat=True)[:limit])
