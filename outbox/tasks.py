"""Celery tasks of the platform, one call each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import structlog
from celery import shared_task

from outbox import audit as auditing
from outbox import (
    conf,
    control,
    dead_letters,
    measure,
    metrics,
    nudge,
    queries,
    redrive,
    retention,
    upkeep,
)
from outbox import drain as draining
from outbox.conf import DRAIN
from outbox.failures import DATABASE_AWAY
from outbox.findings import MISSING
from outbox.kafka import admin
from outbox.models import DeadLetter
from outbox.queries import LetterCount

__all__ = [
    "audit",
    "drain_outbox",
    "measure_backlog",
    "measure_handlers",
    "purge",
    "redrive_letters",
]

log = structlog.get_logger("outbox.tasks")


@shared_task(name=nudge.DRAIN_TASK, acks_late=False, time_limit=DRAIN.task_time_limit)
def drain_outbox(*, asked: bool = False) -> int:
    """Send what is pending to Kafka; returns the number of events settled.

    Run by beat every second, and by a nudge after commits, which has asked for it. Losing one loses
    nothing. Where events keep coming it stays for a moment.
    """
    if asked:
        nudge.take_nudge()
    try:
        report = draining.drain()
        stays = report.settled >= DRAIN.linger_from and not report.stopped
        return report.settled + (_linger() if stays else 0)
    except DATABASE_AWAY as error:
        log.warning("drain_database_unavailable", error=str(error))
        return 0


_BRIEFLY = replace(DRAIN, run_seconds=DRAIN.linger)


def _linger() -> int:
    """Drain again and again, as long as there is something and for a moment at most."""
    if not nudge.hold_nudges():
        return 0
    total, until = 0, time.monotonic() + DRAIN.linger
    try:
        while time.monotonic() < until:
            time.sleep(DRAIN.linger_pause)
            report = draining.drain(_BRIEFLY)
            total += report.settled
            if report.stopped or not report.settled:
                break
    finally:
        nudge.take_nudge()
    return total + draining.drain(_BRIEFLY).settled  # of who has committed and found it held


@shared_task(name="outbox.measure_backlog", acks_late=False, time_limit=DRAIN.task_time_limit)
def measure_backlog() -> None:
    """Set the gauges of what waits; run by beat every five seconds."""
    try:
        measure.measure_outbox()
        metrics.HELD.set(queries.held_events())
        _measure_letters(queries.open_letters())
        for standing in control.standings(route.handler for route in conf.routes()):
            metrics.HANDLER_PAUSED.labels(standing.handler).set(standing.paused)
            metrics.CIRCUIT_OPEN.labels(standing.handler).set(standing.tripped)
    except DATABASE_AWAY as error:
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
    except DATABASE_AWAY as error:
        log.warning("redrive_database_unavailable", error=str(error))
        return 0


@shared_task(name="outbox.measure_handlers", time_limit=60)
def measure_handlers() -> None:
    """Set the gauges of handlers and lanes; run by beat every ten seconds."""
    try:
        measure.measure_handlers(conf.routes())
    except DATABASE_AWAY as error:
        log.warning("handlers_unknown", error=str(error))


@shared_task(name="outbox.audit", time_limit=60)
def audit() -> int:
    """Go on with the audit from its marks, without repair; run by beat every ten seconds.

    Returns the number of events that are missing.
    """
    missing = 0
    with upkeep.only_one("audit") as mine:
        if not mine:
            return 0
        logs, routes = _logs(), conf.routes()
        for route in routes:
            tallies = auditing.watch(route, logs, seconds=auditing.WATCH_SECONDS / len(routes))
            lost = [tally for (_, state), tally in tallies.items() if state in MISSING]
            count = sum(tally.events for tally in lost)
            waiting = sum(tally.events for tally in tallies.values()) - count
            oldest = max((tally.oldest_seconds for tally in lost), default=0.0)
            metrics.AUDIT_MISSING.labels(route.handler).set(count)
            metrics.AUDIT_MISSING_AGE.labels(route.handler).set(oldest)
            metrics.AUDIT_WAITING.labels(route.handler).set(waiting)
            metrics.AUDIT_BEHIND.labels(route.handler).set(auditing.behind_seconds(route.handler))
            if count:
                log.error(
                    "events_missing",
                    handler=route.handler,
                    events=count,
                    oldest_seconds=round(oldest),
                    advice="manage.py audit",
                )
            missing += count
        upkeep.note_done("audit")
    return missing


def _logs() -> dict[str, admin.TopicState]:
    try:
        return admin.topic_states([topic.name for topic in conf.topics()])
    except admin.KafkaUnavailable as error:
        log.warning("audit_without_kafka", error=str(error))
        return {}


@shared_task(name="outbox.purge", time_limit=60)
def purge() -> int:
    """Delete what is done and past its retention; run by beat every minute. Returns the rows."""
    with upkeep.only_one("purge") as mine:
        if not mine:
            return 0
        purged = retention.purge()
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
