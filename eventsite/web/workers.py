"""Several web processes that share a port, under one that starts them again."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

__all__ = ["Workers"]

START_SECONDS = 120.0  # until a worker serves
log = structlog.get_logger("eventsite.web")


class Workers(Multiprocess):
    """uvicorn's supervisor, with patience for workers that are starting.

    It kills a worker that does not answer in `timeout_worker_healthcheck` seconds and starts another one.
    Before a worker can answer, Python has to start and import the server; where that takes longer, on busy
    cores or under a CPU limit, each would be killed before it serves, without end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until: WeakKeyDictionary[Process, float] = WeakKeyDictionary()

    def serve(self) -> bool:
        """Until SIGTERM or SIGINT; false if the application did not start, which ends all workers."""
        self.run()
        return all(worker.exitcode != STARTUP_FAILURE for worker in self.processes)

    def keep_subprocess_alive(self) -> None:
        """Called twice a second."""
        starting = [worker for worker in self.processes if self._is_starting(worker)]
        if starting:
            return
        before = list(self.processes)
        super().keep_subprocess_alive()
        for worker in before:
            if worker not in self.processes:
                log.warning("web_worker_replaced", worker=worker.pid, exit_code=worker.exitcode)

    def _is_starting(self, worker: Process) -> bool:
        """It lives, does not serve yet, and still has time to. Does not wait, so that a stop that is
        ordered now is heard."""
        if worker not in self._until:
            self._until[worker] = time.monotonic() + START_SECONDS
            worker.parent_conn.send(b"ping")
        if not worker.process.is_alive() or time.monotonic() > self._until[worker]:
            return False
        if worker.parent_conn.poll():
            if worker.parent_conn.recv():  # it serves
                self._until[worker] = 0.0
                return False
            worker.parent_conn.send(b"ping")
        return True
