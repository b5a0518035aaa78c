"""Notifications laid ready in the tables, and what the provider's log says of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import msgspec
from django.db import connection

__all__ = [
    "Arrived",
    "busiest_second",
    "clear",
    "delivered",
    "lay_ready",
    "lay_scheduled",
    "pending_after",
    "read_log",
    "steps",
]

CHANNELS = ("sms", "email", "push")


class Arrived(msgspec.Struct, frozen=True):
    """A line of the provider's log: monotonic seconds, key, path."""

    at: float
    key: str
    path: str


_LAY = """
    INSERT INTO notifications (
        id, caller, recipient, channel, priority, content, status, expires_at, ready_at, due_at,
        max_retries, created_at, updated_at
    )
    SELECT uuidv7(), 'bench', '+1555' || lpad(number::text, 7, '0'),
           (%s::text[])[1 + number %% array_length(%s::text[], 1)],
           (%s::text[])[1 + (number / 3) %% array_length(%s::text[], 1)],
           repeat('x', 100), 'pending', clock_timestamp() + interval '1 hour', clock_timestamp(),
           clock_timestamp(), 5, clock_timestamp(), clock_timestamp()
    FROM generate_series(1, %s) AS number
"""


def lay_ready(
    count: int, *, channels: Sequence[str] = CHANNELS, priorities: Sequence[str] = ("normal",)
) -> None:
    """As if their handlers had seen them."""
    given = [list(channels)] * 2 + [list(priorities)] * 2
    with connection.cursor() as cursor:
        cursor.execute(_LAY, (*given, count))


_SCHEDULE = """
    INSERT INTO notifications (
        id, caller, recipient, channel, priority, content, status, scheduled_at, expires_at,
        max_retries, created_at, updated_at
    )
    SELECT uuidv7(), 'bench', '+1555' || lpad(number::text, 7, '0'),
           (%s::text[])[1 + number %% 3], (ARRAY['high', 'normal', 'low'])[1 + (number / 3) %% 3],
           repeat('x', 100), 'scheduled', moment, moment + interval '1 hour', 5, clock_timestamp(),
           clock_timestamp()
    FROM generate_series(1, %s) AS number,
         (SELECT clock_timestamp() + make_interval(secs => %s) AS moment) AS due
"""


def lay_scheduled(count: int, *, seconds: float) -> None:
    """All for one moment, so many seconds from now."""
    with connection.cursor() as cursor:
        cursor.execute(_SCHEDULE, (list(CHANNELS), count, seconds))


_PENDING_AFTER = """
    SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY changed.at - sent.scheduled_at),
           max(changed.at - sent.scheduled_at), max(sent.ready_at - sent.scheduled_at)
    FROM notification_status_log AS changed
    JOIN notifications AS sent ON sent.id = changed.notification_id
    WHERE changed.previous = 'scheduled' AND changed.status = 'pending'
"""


def pending_after() -> tuple[int, tuple[float, float, float]]:
    """How many of those that were scheduled are pending; milliseconds behind their time until they were,
    median and the last, and until the last one's handler had made it ready."""
    with connection.cursor() as cursor:
        cursor.execute(_PENDING_AFTER)
        count, *times = cursor.fetchone()
        p50, last, ready = (each.total_seconds() * 1000 if each else 0.0 for each in times)
        return count, (p50, last, ready)


def clear() -> None:
    """Nothing of the part before is left to be sent, and the tables are tidy."""
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE notifications, notification_attempts, notification_status_log,"
            " notification_holds, event_outbox"
        )
        cursor.execute("VACUUM (ANALYZE) notifications, notification_attempts")


def delivered() -> int:
    """Notifications that are delivered."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM notifications WHERE status = 'delivered'")
        return int(cursor.fetchone()[0])


_STEPS = """
    SELECT percentile_cont(%s) WITHIN GROUP (ORDER BY event.published_at - sent.created_at),
           percentile_cont(%s) WITHIN GROUP (ORDER BY sent.ready_at - event.published_at),
           percentile_cont(%s) WITHIN GROUP (ORDER BY attempt.at - sent.ready_at)
    FROM notifications AS sent
    JOIN event_outbox AS event ON event.key = sent.id::text AND event.topic LIKE 'notifications.%%'
    JOIN notification_attempts AS attempt ON attempt.notification_id = sent.id AND attempt.number = 1
"""


def steps(share: float) -> tuple[float, ...]:
    """Milliseconds that so large a share of what was created took at most: until Kafka had its event, from
    there until it was ready, and until its first attempt began."""
    with connection.cursor() as cursor:
        cursor.execute(_STEPS, (share, share, share))
        return tuple(each.total_seconds() * 1000 for each in cursor.fetchone())


def read_log(log: Path, *, since: float = 0.0) -> list[Arrived]:
    """What has arrived since a moment of the monotonic clock, the oldest first."""
    lines = (line.split() for line in log.read_text().splitlines())
    found = [Arrived(float(at), key, path) for at, key, path in lines]
    return sorted((each for each in found if each.at >= since), key=lambda each: each.at)


def busiest_second(times: Sequence[float]) -> int:
    """The most in a window of one second, wherever it begins. `times` are sorted."""
    return max((bisect_left(times, at + 1.0) - place for place, at in enumerate(times)), default=0)
