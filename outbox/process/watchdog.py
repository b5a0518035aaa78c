"""Ends a process that runs without making progress, so that its supervisor starts it again
(guarantees.md#r19).

A thread looks once a second and counts its looks, not the time on a clock: a process that was stopped
has not looked meanwhile, and so gets all of its patience to catch up."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from django.conf import settings

__all__ = ["LOOK_SECONDS", "Progress", "StopFlag", "ThreadProgress", "Watchdog"]

LOOK_SECONDS = 1.0
STOP_SECONDS = 8.0  # from the order to stop until it is carried out by force

log = structlog.get_logger("outbox.watchdog")


class Progress(Protocol):
    """What a watchdog asks at each look."""

    def stands_still(self) -> bool:
        """Whether there was something to do since the last look and nothing of it was done."""

    def is_stopping(self) -> bool:
        """Whether the process was asked to stop."""


class Watchdog:
    """Ends this process with exit code 1 when it has stood still for WATCHDOG_SECONDS, and with 0
    when it was asked to stop and has not in eight seconds: what it holds is rolled back by
    PostgreSQL and done by another.

    `before_end` is called first of all, for what would outlive the process.
    """

    def __init__(
        self,
        process: str,
        progress: Progress,
        *,
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._process = process
        self._progress = progress
        self._before_end = before_end
        self._still = self._stopping = 0.0

    def start(self) -> None:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def is_well(self) -> bool:
        """False in the second half of the time that the process may stand still."""
        return self._still <= settings.WATCHDOG_SECONDS / 2

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        if self._progress.is_stopping():
            self._stopping += LOOK_SECONDS
            if self._stopping >= STOP_SECONDS:
                self._end("stop_takes_too_long", 0)
            return
        self._still = self._still + LOOK_SECONDS if self._progress.stands_still() else 0.0
        if self._still >= settings.WATCHDOG_SECONDS:
            self._end("no_progress", 1)

    def _end(self, reason: str, code: int) -> None:
        log.error(reason, process=self._process, exit_code=code)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        try:
            self._before_end()
        finally:
            os._exit(code)


class StopFlag(threading.Event):
    """The order to stop, which every loop asks once a cycle: that is its pulse."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[int] = Counter()  # by thread

    def is_set(self) -> bool:
        self.asked[threading.get_ident()] += 1
        return super().is_set()


class ThreadProgress:
    """Whether one and the same thread has not asked its flag again, look after look. Threads that wait by
    turns, each for a few seconds, get on: with many of them somebody always waits."""

    def __init__(self, stop: StopFlag, threads: Iterable[threading.Thread]) -> None:
        self._stop = stop
        self._threads = list(threads)
        self._seen: dict[int, int] = {}
        self._still: set[int] = set()  # in all looks since one was without

    def stands_still(self) -> bool:
        seen = {thread.ident or 0: self._stop.asked[thread.ident or 0] for thread in self._threads}
        still = {ident for ident, count in seen.items() if self._seen.get(ident) == count}
        self._seen = seen
        stays = bool(still & self._still)
        # A thread that stands still for good is among the next ones, and is found at most once as late.
        self._still = still & self._still or still
        return stays

    def is_stopping(self) -> bool:
        return threading.Event.is_set(self._stop)
