"""Celery tasks of the platform, one call each."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from celery import shared_task
from django.db import InterfaceError, InternalError, OperationalError

from outbox import conf, control, dead_letters, metrics, nudge, queries, redrive
from outbox import drain as draining
from outbox.conf import DRAIN
from outbox.models import DeadLetter
from outbox.queries import LetterCount

__all__ = ["drain_outbox", "measure_backlog", "redrive_letters"]

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
        metrics.BACKLOG.set(backlog.events)
        metrics.OLDEST_AGE.set(backlog.oldest_seconds)
        metrics.HELD.set(queries.held_events())
        _measure_letters(queries.open_letters())
        for standing in control.standings(route.handler for route in conf.routes()):
            metrics.HANDLER_PAUSED.labels(standing.handler).set(standing.paused)
            metrics.CIRCUIT_OPEN.labels(standing.handler).set(standing.tripped)
    except (OperationalError, InterfaceError) as error:
        log.warning("backlog_unknown", error=str(error))


def _measure_letters(counts: Iterable[LetterCount]) -> None:
    """Also the zeros: a gauge that is not set keeps its last value."""
    found = {(count.handler, count.state): count for count in counts}
    for handler in (*(route.handler for route in conf.routes()), dead_letters.DRAIN_HANDLER):
        ages = [0.0]
        for state in DeadLetter.State:
            count = found.get((handler, state.label))
            if state < DeadLetter.State.APPLIED:
                metrics.LETTERS_OPEN.labels(handler, state.label).set(count.letters if count else 0)
            if count:
                ages.append(count.oldest_seconds)
        metrics.LETTERS_OLDEST.labels(handler).set(max(ages))


@shared_task(name="outbox.redrive_letters", acks_late=False, time_limit=DRAIN.task_time_limit)
def redrive_letters() -> int:
    """Hand the dead letters that are due to their handlers, and carry pauses to every partition;
    returns the number of letters. Run by beat every second; two at once share the letters."""
    try:
        control.spread_pauses()
        return redrive.send_due()
    except (OperationalError, InterfaceError) as error:
        log.warning("redrive_database_unavailable", error=str(error))
        return 0
