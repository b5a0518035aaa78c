"""Celery tasks of the notifications, one call each."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
import structlog
from celery import shared_task

from notifications import upkeep
from notifications.delivery import measure, times
from notifications.delivery.breakers import Breakers
from notifications.delivery.ready import decode_known, ready_of
from notifications.delivery.sender import deliver
from notifications.delivery.turns import task_of
from outbox import redis_client
from outbox.database.errors import DATABASE_AWAY
from outbox.handlers.task import effect_task

__all__ = [
    "deliver_high",
    "deliver_low",
    "deliver_normal",
    "fold_figures",
    "keep_times",
    "measure_waiting",
    "prune",
    "ready_high",
    "ready_low",
    "ready_normal",
]

TASK_SECONDS = 15

log = structlog.get_logger("notifications.tasks")


def _ready_task(priority: str) -> Any:
    return effect_task(
        name=f"notifications.ready_{priority}",
        handler=f"ready_{priority}",
        effect=ready_of(priority),
        decode=decode_known,
    )


ready_high = _ready_task("high")
ready_normal = _ready_task("normal")
ready_low = _ready_task("low")


def _deliver_task(priority: str) -> Any:
    """Asked for when something becomes ready, and run by beat every five seconds; more than there are turns
    for end at once. Acknowledged early: what is lost with a worker is in rows, under a lease."""

    @shared_task(name=task_of(priority), acks_late=False, time_limit=TASK_SECONDS)
    def task() -> int:
        try:
            return deliver(priority)
        except redis.RedisError as error:
            redis_client.note_lost(error)
            return 0

    return task


deliver_high = _deliver_task("high")
deliver_normal = _deliver_task("normal")
deliver_low = _deliver_task("low")


@shared_task(name="notifications.keep_times", acks_late=False, time_limit=TASK_SECONDS)
def keep_times() -> int:
    """What time does to notifications; run by beat twice a second. Beats of older releases know it by the
    three names of its parts."""
    try:
        return times.keep_times()
    except DATABASE_AWAY as error:
        log.warning("times_database_unavailable", error=str(error))
        return 0


for _part in ("start_scheduled", "expire", "close_lapsed"):
    shared_task(name=f"notifications.{_part}", acks_late=False, time_limit=TASK_SECONDS)(
        keep_times.run
    )


@shared_task(name="notifications.measure_waiting", acks_late=False, time_limit=TASK_SECONDS)
def measure_waiting() -> None:
    """Set the gauges of what waits; run by beat every five seconds."""
    try:
        measure.measure_waiting(_breakers())
    except DATABASE_AWAY as error:
        log.warning("waiting_unknown", error=str(error))


@shared_task(name="notifications.fold_figures")
def fold_figures() -> int:
    """Run by beat; running twice at once does no harm. Returns the changes that were added."""
    return upkeep.fold_figures()


@shared_task(name="notifications.prune", time_limit=60)
def prune() -> int:
    """Run by beat every minute; running twice at once does no harm. Returns the rows."""
    return upkeep.prune()


@cache
def _breakers() -> Breakers:
    return Breakers()
