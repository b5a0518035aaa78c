"""Celery tasks of the platform, one call each."""

from __future__ import annotations

import structlog
from celery import shared_task
from django.db import InterfaceError, InternalError, OperationalError

from outbox import drain as draining
from outbox import metrics, nudge, queries
from outbox.conf import DRAIN

__all__ = ["drain_outbox", "measure_backlog"]

log = structlog.get_logger("outbox.tasks")


@shared_task(name=nudge.DRAIN_TASK, acks_late=False, time_limit=DRAIN.task_time_limit)
def drain_outbox() -> int:
    """Send what is pending to Kafka; returns the number of events settled.

    Run by beat every second and by a nudge after commits. Losing one loses nothing.
    """
    nudge.take_nudge()
    try:
        return draining.drain().settled
    except (OperationalError, InterfaceError, InternalError) as error:
        log.warning("drain_database_unavailable", error=str(error))
        return 0


@shared_task(name="outbox.measure_backlog", acks_late=False, time_limit=DRAIN.task_time_limit)
def measure_backlog() -> None:
    """Set the gauges of what waits; run by beat every two seconds."""
    try:
        backlog = queries.backlog()
    except (OperationalError, InterfaceError) as error:
        log.warning("backlog_unknown", error=str(error))
        return
    metrics.BACKLOG.set(backlog.events)
    metrics.OLDEST_AGE.set(backlog.oldest_seconds)
