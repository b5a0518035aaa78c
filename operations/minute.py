"""Writes the row of a minute: it asks each server once and judges the answers as the page does.

Any worker may run the task, so no process remembers how long a condition has been met. That is taken over
from the row before.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import cache

import structlog
from django.conf import settings

from feeds.fanout.measuring import posts_between
from operations import past
from operations.broker import FromRedis, ask_redis
from operations.charts import POSTS, series_of
from operations.judge import Alert, Judge
from operations.past import MinuteFigures
from operations.pipeline import ask_kafka, ask_postgres
from operations.reading import Reading, answered, ask_again
from operations.snapshot import Heard, Logs, Snapshot, take
from outbox import operator_log
from outbox.database import jobs
from outbox.database.ask import changed_by
from outbox.upkeep.gauges import Backlog
from outbox.watching import RED

__all__ = ["note_minute"]

REMEMBERED_SECONDS = 300.0  # an older row does not say for how long a condition has been met

log = structlog.get_logger("operations.minute")


def note_minute() -> bool:
    """Write the row of this minute if there is none. Returns whether it wrote one. Raises DatabaseError and
    InterfaceError."""
    if past.unwritten_minute() is None:
        return False
    with jobs.only_one("operations-minute") as mine:
        minute = past.unwritten_minute() if mine else None
        if minute is None:
            return False
        snapshot = _look()
        on = [each for each in snapshot.alerts if each.is_on]
        figures = MinuteFigures(
            series=series_of(snapshot.stations)
            | {POSTS: posts_between(minute - timedelta(minutes=1), minute)},
            alarms={each.key: round(each.held, 1) for each in snapshot.alerts},
            on=_names(on),
            red=_names(each for each in on if each.state == RED),
            releases=tuple(version.name for version in snapshot.versions),
        )
        written = past.write(minute, figures)
        past.purge()
        operator_log.purge()
    return written


def _names(alerts: Iterable[Alert]) -> tuple[str, ...]:
    return tuple(f"{each.name} ({each.station})" for each in alerts)


def _look() -> Snapshot:
    judge = Judge(settings.WIRING.alarms)
    try:
        postgres = answered(ask_postgres(_backlog()))
    finally:
        # The connection belongs to the worker, whose tasks set their own time limits.
        changed_by("RESET statement_timeout")
    held, age = past.last_alarms()
    if age <= REMEMBERED_SECONDS:
        judge.recall(held, age=age)
    heard = Heard(
        postgres=postgres,
        redis=ask_again(ask_redis, Reading[FromRedis].begun()),
        kafka=ask_again(ask_kafka, Reading[Logs].begun()),
    )
    return take(heard, judge)


@cache
def _backlog() -> Backlog:
    """The backlog of this process; a worker process runs one task at a time."""
    return Backlog()
