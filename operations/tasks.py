"""Celery tasks of the page of operators; each makes one call."""

from __future__ import annotations

import structlog
from celery import shared_task

from operations import canary, minute, runs
from outbox.database.errors import DATABASE_AWAY

__all__ = ["note_minute", "send_canaries", "work_on_runs"]

log = structlog.get_logger("operations.tasks")


@shared_task(name="operations.work_on_runs", acks_late=False, time_limit=15)
def work_on_runs() -> int:
    """Continue the runs of operators, at their rates; beat starts it every second. Returns the number of
    letters."""
    try:
        return runs.work()
    except DATABASE_AWAY as error:
        log.warning("runs_database_unavailable", error=str(error))
        return 0


@shared_task(name="operations.note_minute", acks_late=False, time_limit=15)
def note_minute() -> bool:
    """Write this minute's row for the charts if there is none; beat starts it every twenty seconds. Returns
    whether it wrote one."""
    try:
        return minute.note_minute()
    except DATABASE_AWAY as error:
        log.warning("minute_database_unavailable", error=str(error))
        return False


@shared_task(name="operations.send_canaries", acks_late=False, time_limit=15)
def send_canaries() -> int:
    """Send this minute's canaries if none were sent, and measure which handlers passed the last ones; beat
    starts it every ten seconds. Returns how many were sent."""
    try:
        sent = canary.send_if_due()
        canary.measure()
        return sent
    except DATABASE_AWAY as error:
        log.warning("canary_database_unavailable", error=str(error))
        return 0
