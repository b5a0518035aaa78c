"""Celery tasks of the platform, one call each."""

from __future__ import annotations

import structlog
from celery import shared_task

from outbox import conf, metrics
from outbox.audit.compare import MISSING
from outbox.audit.watch import WATCH_SECONDS, behind_seconds, watch
from outbox.conf import DRAIN
from outbox.database import jobs
from outbox.database.errors import DATABASE_AWAY
from outbox.dead_letters import due, unknown_type
from outbox.drain.run import Drain
from outbox.handlers import pause
from outbox.kafka import admin
from outbox.publish import nudge
from outbox.upkeep import gauges
from outbox.upkeep.gauges import measure_letters
from outbox.upkeep.purge import purge as purge_rows

__all__ = [
    "audit",
    "drain_outbox",
    "measure_backlog",
    "measure_handlers",
    "purge",
    "redrive_letters",
]

log = structlog.get_logger("outbox.tasks")

_drain = Drain()  # of this process: what it remembers lasts from task to task


@shared_task(name=nudge.DRAIN_TASK, acks_late=False, time_limit=DRAIN.task_time_limit)
def drain_outbox(*, asked: bool = False) -> int:
    """Send what is pending to Kafka; returns the number of events settled.

    Run by beat every second, and by a nudge after commits, which has asked for it. Losing one loses
    nothing. Where events keep coming it stays for a moment.
    """
    if asked:
        nudge.take_nudge()
    try:
        report = _drain.run()
        stays = report.settled >= _drain.policy.linger_from and not report.stopped
        return report.settled + (_drain.linger() if stays else 0)
    except DATABASE_AWAY as error:
        log.warning("drain_database_unavailable", error=str(error))
        return 0


@shared_task(name="outbox.measure_backlog", acks_late=False, time_limit=DRAIN.task_time_limit)
def measure_backlog() -> None:
    """Set the gauges of what waits; run by beat every five seconds."""
    try:
        gauges.measure_outbox()
        metrics.HELD.set(gauges.held_events())
        measure_letters(gauges.open_letters())
        gauges.measure_unknown_types()
        for status in pause.handler_statuses(route.handler for route in conf.routes()):
            metrics.HANDLER_PAUSED.labels(status.handler).set(status.paused)
            metrics.CIRCUIT_OPEN.labels(status.handler).set(status.tripped)
    except DATABASE_AWAY as error:
        log.warning("backlog_unknown", error=str(error))


@shared_task(name="outbox.redrive_letters", acks_late=False, time_limit=DRAIN.task_time_limit)
def redrive_letters() -> int:
    """Hand the dead letters that are due to their handlers, those among them whose type is known by
    now, and carry pauses to every partition; returns the number of letters. Run by beat every
    second; two at once share the letters."""
    try:
        pause.spread_pauses()
        unknown_type.take_known(conf.routes())
        return due.send_due()
    except DATABASE_AWAY as error:
        log.warning("redrive_database_unavailable", error=str(error))
        return 0


@shared_task(name="outbox.measure_handlers", time_limit=60)
def measure_handlers() -> None:
    """Set the gauges of handlers and lanes; run by beat every ten seconds."""
    try:
        gauges.measure_handlers(conf.routes())
    except DATABASE_AWAY as error:
        log.warning("handlers_unknown", error=str(error))


@shared_task(name="outbox.audit", time_limit=60)
def audit() -> int:
    """Go on with the audit from its marks, without repair; run by beat every ten seconds.

    Returns the number of events that are missing.
    """
    missing = 0
    with jobs.only_one("audit") as mine:
        if not mine:
            return 0
        routes = conf.routes()
        logs, error = admin.states_or_none(topic.name for topic in conf.topics())
        if error:
            log.warning("audit_without_kafka", error=error)
        for route in routes:
            tallies = watch(route, logs, seconds=WATCH_SECONDS / len(routes))
            lost = [tally for (_, reason), tally in tallies.items() if reason in MISSING]
            count = sum(tally.events for tally in lost)
            waiting = sum(tally.events for tally in tallies.values()) - count
            oldest = max((tally.oldest_seconds for tally in lost), default=0.0)
            metrics.AUDIT_MISSING.labels(route.handler).set(count)
            metrics.AUDIT_MISSING_AGE.labels(route.handler).set(oldest)
            metrics.AUDIT_WAITING.labels(route.handler).set(waiting)
            metrics.AUDIT_BEHIND.labels(route.handler).set(behind_seconds(route.handler))
            if count:
                log.error(
                    "events_missing",
                    handler=route.handler,
                    events=count,
                    oldest_seconds=round(oldest),
                    advice="manage.py audit",
                )
            missing += count
        jobs.note_done("audit")
    return missing


@shared_task(name="outbox.purge", time_limit=60)
def purge() -> int:
    """Delete what is done and past its retention; run by beat every minute. Returns the rows."""
    with jobs.only_one("purge") as mine:
        if not mine:
            return 0
        purged = purge_rows()
    metrics.PURGED.labels("event_outbox").inc(purged.events)
    metrics.PURGED.labels("inbox_receipt").inc(purged.receipts)
    metrics.PURGED.labels("dead_letter").inc(purged.dead_letters)
    if purged.events or purged.receipts or purged.dead_letters:
        log.info(
            "purged",
            events=purged.events,
            receipts=purged.receipts,
            dead_letters=purged.dead_letters,
            kept=purged.kept,
        )
    return purged.events + purged.receipts + purged.dead_letters
