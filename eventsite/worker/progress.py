"""Whether a Celery worker still does what it is there for: Celery is known to stop consuming after
Redis was unavailable, while its loop turns and its queues grow."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import redis
from celery.worker import state as worker_state
from django.conf import settings

from outbox import redis_client
from outbox.process.watchdog import LOOK_SECONDS

__all__ = ["WorkerProgress"]

REDIS_SECONDS = 1.0


class WorkerProgress:
    """Looks at one worker from a thread of its main process.

    It stands still when no task was taken or finished since the last look, although Redis takes
    writes, as taking a task needs, and holds messages in its queues, and its processes are not all busy with tasks that may run
    as long.
    """

    def __init__(self, worker: Any) -> None:  # a WorkController, of which the stubs know little
        self._worker = worker
        self._queues = list(worker.app.amqp.queues.consume_from)
        self._redis = redis_client.client(
            answers_within=REDIS_SECONDS, connects_within=REDIS_SECONDS
        )
        self._last: tuple[int, frozenset[str]] = (0, frozenset())
        self._seconds = 0.0  # since something was taken or finished

    def stands_still(self) -> bool:
        found = (worker_state.all_total_count[0], frozenset(list(worker_state.requests)))
        if found != self._last:
            self._last, self._seconds = found, 0.0
            return False
        self._seconds += LOOK_SECONDS
        return not self._may_be_busy() and self._messages_wait()

    def is_stopping(self) -> bool:
        return worker_state.should_stop is not None

    def kill_children(self) -> None:
        """Before this process ends: its children would go on without it."""
        for child in list(self._worker.pool._pool._pool):
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def _may_be_busy(self) -> bool:
        started = [request.time_start for request in list(worker_state.requests.values())]
        running = sum(start is not None for start in started)
        return (
            running >= self._worker.concurrency and self._seconds < settings.CELERY_TASK_TIME_LIMIT
        )

    def _messages_wait(self) -> bool:
        try:
            return any(redis_client.queue_lengths(self._redis, self._queues))
        except redis.RedisError:
            return False
