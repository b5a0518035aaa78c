"""What time does: schedules come, notifications expire, leases end. Times are in rows, and beat's tasks
look for those that have come; two at once share the rows."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from django.db import transaction

from notifications import metrics
from notifications.delivery import rows
from notifications.delivery.rules import Claim, lapsed
from notifications.delivery.turns import nudge_all
from notifications.events import PENDING_EVENTS
from notifications.providers.configured import in_order
from notifications.status_log import CHANGED, Changed, recording
from outbox.database.ask import rows_of
from outbox.database.round_trips import send
from outbox.publish.events import publishing

__all__ = ["EXPIRED", "close_lapsed", "expire", "keep_times", "start_scheduled"]

BATCH = 1000
RUN_SECONDS = 5.0
EXPIRED = "expired"

log = structlog.get_logger("notifications.times")

_START = f"""
    WITH before AS MATERIALIZED (
        SELECT id, status FROM notifications
        WHERE status = 'scheduled' AND scheduled_at <= clock_timestamp()
        ORDER BY scheduled_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE notifications AS changed SET status = 'pending', updated_at = clock_timestamp()
    FROM before WHERE changed.id = before.id
    RETURNING {CHANGED}, changed.priority
"""
_EXPIRE = f"""
    WITH before AS MATERIALIZED (
        SELECT id, status FROM notifications
        WHERE status = 'pending' AND expires_at <= clock_timestamp()
        ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE notifications AS changed
    SET status = 'failed', due_at = NULL, waits_for = '', error_message = %s,
        failed_at = clock_timestamp(), updated_at = clock_timestamp()
    FROM before WHERE changed.id = before.id
    RETURNING {CHANGED}
"""
_LAPSED = """
    SELECT id::text, attempt, channel, retry_count, max_retries FROM notifications
    WHERE status = 'processing' AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
"""


def keep_times() -> int:
    """All of it, and a delivery is asked for where something is ready; returns how many changed."""
    changed = start_scheduled() + expire() + close_lapsed()
    served = [channel for channel in rows.CHANNELS if in_order(channel)]
    nudge_all(rows.ready_priorities(served))
    return changed


def start_scheduled() -> int:
    """Make scheduled notifications whose time has come pending, each with its NOTIFICATION_PENDING; returns how many."""
    return _in_batches(_start_some)


def expire() -> int:
    """Fail what still waits at its `expires_at`; returns how many."""
    count = _in_batches(_expire_some)
    metrics.EXPIRED.inc(count)
    return count


def close_lapsed() -> int:
    """Close attempts whose lease has ended as `unknown`; each uses up an attempt. Returns how many."""
    count = _in_batches(_close_some)
    if count:
        log.warning("leases_lapsed", notifications=count)
    return count


def _in_batches(some: Callable[[], int]) -> int:
    until = time.monotonic() + RUN_SECONDS
    done = 0
    while time.monotonic() < until:
        with transaction.atomic():
            count = some()
        done += count
        if count < BATCH:
            break
    return done


def _start_some() -> int:
    found = [(Changed(*row), priority) for *row, priority in rows_of(_START, (BATCH,))]
    recorded = recording([change for change, _ in found])
    ready = publishing(
        [
            PENDING_EVENTS[priority](
                event_id=change.notification_id,
                notification_id=change.notification_id,
                channel=change.channel,
            )
            for change, priority in found
        ],
        traces=[change.trace for change, _ in found],
    )
    send(recorded)
    send(ready)
    return len(found)


def _expire_some() -> int:
    changes = [Changed(*row) for row in rows_of(_EXPIRE, (BATCH, EXPIRED))]
    send(recording(changes))
    return len(changes)


def _close_some() -> int:
    claims = [
        Claim(id=id_, number=number, channel=channel, failures=failures, attempts_allowed=allowed)
        for id_, number, channel, failures, allowed in rows_of(_LAPSED, (BATCH,))
    ]
    rows.settle([lapsed(claim) for claim in claims])
    for claim in claims:
        metrics.ATTEMPTS.labels(claim.channel, "", "unknown").inc()
    return len(claims)
