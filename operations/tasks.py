"""Celery tasks of the page of operators, one call each."""

from __future__ import annotations

import structlog
from celery import shared_task

from operations import canary, minute, runs
from outbox.database.errors import DATABASE_AWAY

__all__ = ["note_minute", "send_canaries", "work_on_runs"]

log = structlog.get_logger("operations.tasks")


@shared_task(name="operations.work_on_runs", acks_late=False, time_limit=15)
def work_on_runs() -> int:
    """Go on with what operators have begun, as fast as they said; run by beat every second. Returns
    the number of letters."""
    try:
        return runs.work()
    except DATABASE_AWAY as error:
        log.warning("runs_database_unavailable", error=str(error))
        return 0


@shared_task(name="operations.note_minute", acks_late=False, time_limit=15)
def note_minute() -> bool:
    """Keep this minute for the charts, unless that is done; run by beat every twenty seconds. Returns
    whether it was kept."""
    try:
        return minute.note_minute()
    except DATABASE_AWAY as error:
        log.warning("minute_database_unavailable", error=str(error))
        return False


@shared_task(name="operations.send_canaries", acks_late=False, time_limit=15)
def send_canaries() -> int:
    """Send the canaries of this minute, unless that is done, and measure where the last ones are; run by
    beat every ten seconds. Returns how many were sent."""
    try:
        sent = canary.send_if_due()
        canary.measure()
        return sent
    except DATABASE_AWAY as error:
        log.warning("canary_database_unavailable", error=str(error))
        return 0
