"""The nudge of a status log: after a commit, one message by Redis that there is more to read. Latency
only, so it is sent from a thread of its own, and one that fails is forgotten."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache

import redis

from outbox import redis_client

__all__ = ["CHANNEL", "nudge_status_log", "nudging"]

CHANNEL = "status_log:nudge"  # of Redis' publish and subscribe; a message is the name of a log
_SPACING = 0.01  # seconds between two nudges of a process
_UNHEARD_SECONDS = 0.5  # pause after one that no web process has heard: none has an open socket
_LOST_SECONDS = 1.0


@cache
def _redis() -> redis.Redis:
    # Once more is harmless: a second nudge finds nothing to read.
    return redis_client.client(answers_within=1.0, connects_within=0.5, again=1)


class _Nudger:
    """One daemon thread of one process, made at the first nudge (after any fork)."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._logs: deque[str] = deque()
        self._wanted = threading.Event()
        threading.Thread(target=self._run, name="status-nudge", daemon=True).start()

    def want(self, log: str) -> None:
        self._logs.append(log)
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            logs = {self._logs.popleft() for _ in range(len(self._logs))}
            try:
                heard = sum(int(_redis().publish(CHANNEL, log)) for log in logs)
                redis_client.ask_if_back(_redis())
                time.sleep(_SPACING if heard else _UNHEARD_SECONDS)
            except (redis.RedisError, OSError) as error:
                redis_client.note_lost(error)
                time.sleep(_LOST_SECONDS)


_nudger: _Nudger | None = None
_guard = threading.Lock()


def nudge_status_log(log: str) -> None:
    """Say, after COMMIT, that this log has a new row. Returns at once and never raises for a Redis
    that is unavailable."""
    global _nudger
    if _nudger is None or _nudger.pid != os.getpid():
        with _guard:
            if _nudger is None or _nudger.pid != os.getpid():
                _nudger = _Nudger()
    _nudger.want(log)


def nudging(log: str, on_commit: Callable[[], None] | None) -> Callable[[], None]:
    """The `on_commit` of a round trip that adds to this log: that of the rest of it, and the nudge."""

    def nudge() -> None:
        nudge_status_log(log)
        if on_commit is not None:
            on_commit()

    return nudge
