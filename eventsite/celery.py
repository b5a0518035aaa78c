"""The Celery app of worker and beat."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Mapping
from typing import Any

import structlog
from celery import Celery, beat, bootsteps
from celery.signals import (
    beat_init,
    before_task_publish,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_shutdown,
    worker_ready,
)
from django.conf import settings
from django.db import close_old_connections

from eventsite import serializer
from eventsite.settings.env import environment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
# It says where metrics go, which prometheus_client asks when it is imported: so nothing above imports it. Beat,
# which is started by Celery's own command, would else count for itself, and its /metrics would be empty.
environment()

__all__ = ["Scheduler", "app"]

QUEUE_BOUND = 50  # tasks; beat adds none to a queue that is longer
LENGTHS_SECONDS = 0.9  # that beat knows the lengths of its queues
EARLIER = 0.5  # seconds before a task's time limit that it waits for the database no longer
APART = 0.618  # of an interval, from one task's first run to the next one's: close to evenly spread
RESULTS_OF_A_PROCESS = 10  # at most so many wait unread; each has one task at work and one to come

log = structlog.get_logger("eventsite.celery")


class ReadResults(bootsteps.StartStopStep):
    """After a reconnect: read the results of finished tasks before counting their time. The main
    process reads none while it waits for Redis, would take finished tasks for overdue, and kill their
    processes."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        pool = parent.pool._pool
        if not pool._registered_with_event_loop:
            return  # the first start: the loop has yet to meet the processes
        pipes = list(pool._fileno_to_outq)
        for _ in range(RESULTS_OF_A_PROCESS):
            for pipe in select.select(pipes, [], [], 0)[0]:
                pool.handle_result_event(pipe)


class Scheduler(beat.Scheduler):
    """Celery's scheduler, except that a lost Redis is one log line instead of two tracebacks
    for each task, and that a queue without a worker gets no more tasks: those that wait there
    are enough. It wakes several times a second, so it skips what Celery's scheduler does for
    schedules that change, and asks for the lengths of all queues at once, once a second.

    Celery's begins all intervals at the same moment, so every ten seconds all tasks would come at
    once, and events would wait behind them. Here the intervals begin apart from each other.

    Celery's wakes ten milliseconds early and asks until the task is due: up to 10 ms of a core for each
    (findings/celery-beat-spins-before-each-task.sh). This one wakes when it is due."""

    _lengths: Mapping[str, float] = {}
    _asked_at = float("-inf")

    def setup_schedule(self) -> None:
        super().setup_schedule()
        now = self.app.now()
        entries: list[Any] = list(self.schedule.values())
        entries.sort(key=lambda each: (each.schedule.run_every, each.name))
        for number, entry in enumerate(entries):
            entry.last_run_at = now - entry.schedule.run_every * (number * APART % 1)

    def adjust(self, n: Any, drift: float = 0.0) -> Any:
        return n

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        return True  # entries are what the settings say, for as long as it runs

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        queue = entry.options["queue"]
        waiting = self._waiting(queue)
        if math.isinf(waiting):
            return  # Redis is lost, which has been logged
        if waiting > QUEUE_BOUND:
            log.warning("task_not_sent", task=entry.task, queue=queue, error="its queue is full")
            return
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except beat.SchedulingError as error:
            self._asked_at = float("-inf")
            log.warning("task_not_sent", task=entry.task, error=str(error))

    def _waiting(self, queue: str) -> float:
        from outbox.process.task_queue import queue_lengths

        now = time.monotonic()
        if now - self._asked_at >= LENGTHS_SECONDS:
            entries = settings.CELERY_BEAT_SCHEDULE.values()
            queues = sorted({each["options"]["queue"] for each in entries})
            self._lengths, self._asked_at = queue_lengths(queues), now
        return self._lengths[queue]


serializer.register()
app = Celery("eventsite", amqp="eventsite.worker.redis_broker:RedisAMQP")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.steps["consumer"].add(ReadResults)


@setup_logging.connect
def _keep_our_logging(**kwargs: Any) -> None:
    """Celery leaves logging alone when somebody listens: eventsite.apps has configured it."""


@before_task_publish.connect
def _say_when(headers: dict[str, Any], **kwargs: Any) -> None:
    """So that the age of what waits in a queue is known."""
    from outbox.process.task_queue import SENT_AT

    headers[SENT_AT] = time.time()


@task_prerun.connect
def _begin_like_a_request(task: Any, **kwargs: Any) -> None:
    """Celery would reconnect for each task (see CELERY_DB_REUSE_MAX); this keeps the
    connection and drops it only when it is unusable.

    A database that does not answer is given up before Celery kills the process for the task's time,
    and before the watchdog takes a worker that only waits for one that is stuck.
    """
    from outbox.database import patience

    longest = settings.CELERY_TASK_TIME_LIMIT
    limit = task.time_limit or longest
    patience.begin(limit - EARLIER, each=min(limit, longest) - EARLIER)
    close_old_connections()


@task_postrun.connect
def _end_like_a_request(**kwargs: Any) -> None:
    from outbox.database import patience

    patience.end()


@worker_init.connect
def _serve_worker_endpoints(sender: Any, **kwargs: Any) -> None:
    from celery.worker import state

    from eventsite.worker.progress import WorkerProgress
    from outbox.process import gc_tuning, ops_server
    from outbox.process.watchdog import Watchdog

    gc_tuning.tune_gc()
    progress = WorkerProgress(sender)
    watchdog = Watchdog("worker", progress, before_end=progress.kill_children)
    ops_server.serve_in_background(
        "worker",
        is_well=watchdog.is_well,
        figures=lambda: {"tasks_begun": state.all_total_count[0]},
        queues=lambda: sorted(app.amqp.queues.consume_from),
    )
    worker_ready.connect(lambda **_: watchdog.start(), weak=False)


@beat_init.connect
def _serve_beat_endpoints(**kwargs: Any) -> None:
    from outbox.process import ops_server

    ops_server.serve_in_background("beat")


@worker_process_shutdown.connect
def _forget_live_metrics(pid: int, **kwargs: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
