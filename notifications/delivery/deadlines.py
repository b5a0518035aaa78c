"""How much time is left: until notifications of a paused channel expire, and until failed ones are deleted."""

from __future__ import annotations

from django.conf import settings

from outbox.database.ask import row_of
from outbox.watching import TimeLeft

__all__ = ["of_failed", "of_paused"]

LOOKED_AT = 2_000  # of those that expire next
FAILED_LOOKED_AT = 200  # of the oldest that have failed
# Each walks along an index of its own: of what is pending, and of what has failed and is not discarded.
_EXPIRES_FIRST = """
    SELECT extract(epoch FROM expires_at - clock_timestamp())::float,
           extract(epoch FROM expires_at - created_at)::float
    FROM (SELECT channel, expires_at, created_at FROM notifications
          WHERE status = 'pending' ORDER BY expires_at LIMIT %s) AS next
    WHERE channel = %s ORDER BY expires_at LIMIT 1
"""
_FAILED_FIRST = """
    SELECT extract(epoch FROM clock_timestamp() - min(updated_at))::float
    FROM (SELECT updated_at FROM notifications
          WHERE status = 'failed' AND discarded_at IS NULL ORDER BY id LIMIT %s) AS oldest
"""


def of_paused(channel: str) -> tuple[TimeLeft, ...]:
    """When the first that waits for a paused channel is over its time."""
    found = row_of(_EXPIRES_FIRST, (LOOKED_AT, channel))
    if found is None:
        return ()
    left, whole = found
    return (
        TimeLeft(
            name=f"channel {channel}, paused",
            left=left,
            whole=max(1.0, whole),
            standing="the notification that expires next waits for it",
            ends="it fails with the reason expired, and so do those behind it",
        ),
    )


def of_failed() -> tuple[TimeLeft, ...]:
    """When the oldest that has failed can no longer be sent again, because it is deleted."""
    [age] = row_of(_FAILED_FIRST, (FAILED_LOOKED_AT,))
    if age is None:
        return ()
    kept = settings.NOTIFICATION_RETENTION_HOURS * 3600.0
    return (
        TimeLeft(
            name="failed notifications",
            left=kept - age,
            whole=kept,
            standing=f"kept for {settings.NOTIFICATION_RETENTION_HOURS} h after they have failed",
            ends="the oldest is deleted: a replay finds it no more",
        ),
    )
