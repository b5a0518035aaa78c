"""Keeps one snapshot per process for all viewers, and asks the servers while somebody looks.

Each server has a thread, so a server that hangs does not hide the others. A viewer gets what is known, and
waits only if nothing is known yet. Half a minute after the last look the threads end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.db import connection

from operations.broker import ask_redis
from operations.judge import Judge
from operations.past import PastReader
from operations.pipeline import FromPostgres, ask_kafka, ask_postgres
from operations.reading import KAFKA, POSTGRESQL, REDIS, Reading, ask_again
from operations.snapshot import Heard, Snapshot, take
from outbox.upkeep.gauges import Backlog

__all__ = ["Observer", "observer"]

WATCHED_SECONDS = 30.0  # after the last look
# How long a look waits if nothing is known. Together with the check of the viewer (operations/viewers.py)
# it stays below the two seconds in which the page must answer.
FIRST_SECONDS = 0.8
NEW_SECONDS = 1.0  # a snapshot serves all looks within this time

log = structlog.get_logger("operations")


class Observer:
    """Asks the servers for this process. It has threads, so create it after any fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._judge = Judge(settings.WIRING.alarms)
        self._looked_at = 0.0
        self._readings: dict[str, Reading[Any]] = {}
        self._asking: set[str] = set()
        # Servers that were asked since the threads began, with or without an answer.
        self._heard_of: set[str] = set()
        self._taken: tuple[float, Snapshot] | None = None
        self._servers: dict[str, tuple[float, Callable[[], Callable[[], Any]]]] = {
            POSTGRESQL: (2.0, _of_postgres),
            REDIS: (2.0, lambda: ask_redis),
            KAFKA: (5.0, lambda: ask_kafka),
        }

    def look(self, *, wait: float = FIRST_SECONDS) -> Snapshot:
        """A snapshot that is at most a second old. Waits up to `wait` seconds for servers that have not been
        asked yet."""
        give_up = time.monotonic() + wait
        with self._changed:
            self._begin()
            self._changed.wait_for(self._is_known, max(0.0, give_up - time.monotonic()))
            now = time.monotonic()
            if self._taken is None or now - self._taken[0] >= NEW_SECONDS:
                self._taken = now, self._take()
            return self._taken[1]

    def _begin(self) -> None:
        self._looked_at = time.monotonic()
        for name in self._servers.keys() - self._asking:
            self._asking.add(name)
            self._heard_of.discard(name)
            # The server was not silent while nobody looked; its last answer is still shown.
            before: Reading[Any] = self._readings.get(name, Reading.begun())
            self._readings[name] = Reading(before.value, before.read_at, since=time.monotonic())
            threading.Thread(
                target=self._ask, args=(name,), name=f"observer-{name}", daemon=True
            ).start()

    def _is_known(self) -> bool:
        return self._heard_of == self._servers.keys()

    def _take(self) -> Snapshot:
        heard = Heard(
            postgres=self._readings[POSTGRESQL],
            redis=self._readings[REDIS],
            kafka=self._readings[KAFKA],
        )
        return take(heard, self._judge)

    def _ask(self, name: str) -> None:
        interval, begin = self._servers[name]
        ask = begin()
        try:
            while True:
                began = time.monotonic()
                heard = self._heard(name, ask)
                with self._changed:
                    self._readings[name] = heard
                    self._heard_of.add(name)
                    self._changed.notify_all()
                    if time.monotonic() - self._looked_at > WATCHED_SECONDS:
                        self._asking.discard(name)
                        return
                time.sleep(max(0.1, interval - (time.monotonic() - began)))
        finally:
            connection.close()

    def _heard(self, name: str, ask: Callable[[], Any]) -> Reading[Any]:
        before = self._readings[name]
        try:
            heard = ask_again(ask, before)
        except Exception as error:
            log.exception("observer_failed", server=name)
            heard = before.failed(f"a fault of this program: {type(error).__name__}; see its log")
        if heard.error:
            connection.close()
        return heard


def _of_postgres() -> Callable[[], FromPostgres]:
    backlog, past = Backlog(), PastReader()
    return lambda: ask_postgres(backlog, past)


@cache
def observer() -> Observer:
    """The observer of this process."""
    return Observer()
