"""Beat puts nothing on a queue that nobody works off, and no task expires by anybody's clock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from celery.beat import ScheduleEntry
from celery.schedules import schedule
from django.conf import settings

from devtools.testing.pipeline import settles
from eventsite.celery import QUEUE_BOUND, Scheduler, app
from outbox import conf
from outbox.publish import nudge

QUEUE = "upkeep"
MANY = 20  # tasks
AT_ONCE = timedelta(milliseconds=50)
# The parts of keep_times.
OF_OLDER_BEATS = {f"notifications.{part}" for part in ("start_scheduled", "expire", "close_lapsed")}


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(QUEUE)
        yield client
        client.delete(QUEUE)


def put_one(scheduler: Scheduler) -> None:
    purge = ScheduleEntry(
        name="purge", task="outbox.purge", schedule=schedule(60), options={"queue": QUEUE}, app=app
    )
    scheduler.apply_entry(purge)


def test_an_empty_queue_gets_its_task(broker: redis.Redis) -> None:
    put_one(Scheduler(app=app, lazy=True))
    assert broker.llen(QUEUE) == 1


def test_a_long_queue_gets_no_more(broker: redis.Redis) -> None:
    broker.rpush(QUEUE, *["{}"] * (QUEUE_BOUND + 1))
    put_one(Scheduler(app=app, lazy=True))
    assert broker.llen(QUEUE) == QUEUE_BOUND + 1


def test_lengths_are_asked_once_a_second(broker: redis.Redis) -> None:
    scheduler = Scheduler(app=app, lazy=True)
    put_one(scheduler)
    broker.rpush(QUEUE, *["{}"] * QUEUE_BOUND)
    put_one(scheduler)
    assert broker.llen(QUEUE) == QUEUE_BOUND + 2
    assert settles(lambda: not grows_by_one(scheduler, broker))


def grows_by_one(scheduler: Scheduler, broker: redis.Redis) -> bool:
    before = broker.llen(QUEUE)
    put_one(scheduler)
    return broker.llen(QUEUE) != before


def test_every_task_is_a_handlers_or_put_by_beat() -> None:
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    handlers = {route.task for route in conf.routes()}
    put = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert ours - handlers - put == OF_OLDER_BEATS


def test_no_task_has_an_expiry() -> None:
    for entry in settings.CELERY_BEAT_SCHEDULE.values():
        assert list(entry["options"]) == ["queue"]


def test_nothing_waits_behind_the_drains() -> None:
    """Each may run for seconds, and beat adds one a second."""
    entries = settings.CELERY_BEAT_SCHEDULE.values()
    queued = [entry["task"] for entry in entries if entry["options"]["queue"] == "outbox"]
    assert queued == [nudge.DRAIN_TASK]


def test_no_moment_gets_all_tasks() -> None:
    """Celery begins every interval at the start; then seventeen come at once, every ten seconds."""
    scheduler = Scheduler(app=app)
    now = app.now()
    moments: Counter[int] = Counter()
    entries: Iterable[Any] = scheduler.schedule.values()
    for entry in entries:
        every = entry.schedule.run_every
        due = entry.last_run_at + every
        assert now - timedelta(seconds=1) <= due <= now + every
        while due < now + timedelta(minutes=2):
            moments[round((due - now) / AT_ONCE)] += 1
            due += every
    assert max(moments.values()) <= 4


class Noting(Scheduler):
    """Notes what it would send."""

    sent: list[str]

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        self.sent.append(entry.name)


def test_it_sleeps_until_a_task_is_due() -> None:
    scheduler = Noting(app=app)
    scheduler.sent = []
    ticks = 0
    while len(scheduler.sent) < MANY:
        ticks += 1
        time.sleep(max(scheduler.tick(), 0))
    # One sends, one says how long to sleep, and the clock may be a little early.
    assert ticks < 4 * MANY
