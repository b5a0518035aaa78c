"""The nudge: after a commit, one Celery message that asks for a drain now (guarantees.md#r7,
docs/outbox.md#the-nudge).

It runs on a thread of its own, where a Redis that is unavailable or slow cannot delay a request."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from uuid import uuid4

import redis
from celery import current_app
from kombu.exceptions import OperationalError

from outbox import metrics, redis_client
from outbox.conf import DRAIN

__all__ = ["DRAIN_TASK", "Nudger", "hold_nudges", "nudge", "take_nudge"]

DRAIN_TASK = "outbox.drain_outbox"
_KEY = "outbox:nudge"
_QUEUE = "outbox"
_AWAY_SECONDS = 1.0


@cache
def _redis() -> redis.Redis:
    # Once more is harmless: each command here has the same effect twice as once.
    return redis_client.client(answers_within=1.0, connects_within=0.5, again=1)


class Nudger:
    """Calls `send` soon after `want`, on one daemon thread of the process, made at the first call (after
    any fork). `send` returns for how many seconds it is left alone then."""

    def __init__(self, name: str, send: Callable[[], float]) -> None:
        self._name = name
        self._send = send
        self._pid = 0
        self._guard = threading.Lock()

    def want(self) -> None:
        """Returns at once."""
        if self._pid != os.getpid():
            with self._guard:
                if self._pid != os.getpid():
                    self._wanted = threading.Event()
                    threading.Thread(target=self._run, name=self._name, daemon=True).start()
                    self._pid = os.getpid()
        if not self._wanted.is_set():  # else the thread will see it yet
            self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            time.sleep(self._send())


def _attempt() -> float:
    try:
        _send()
    except (redis.RedisError, OperationalError, OSError) as error:
        _failed(error)
        return _AWAY_SECONDS + DRAIN.nudge_interval
    return DRAIN.nudge_interval


def _send() -> None:
    """Send unless one is already waiting in the queue: the key lives until a drain takes it, or
    for a moment. The length bounds the queue while nobody takes anything off it.

    When the answer is lost all three commands are sent again. SET NX then finds the key of the first
    time, so it is the value of the key that says whose it is.
    """
    token = uuid4().hex
    with _redis().pipeline(transaction=False) as commands:
        commands.set(_KEY, token, nx=True, px=round(DRAIN.nudge_debounce * 1000))
        commands.get(_KEY)
        commands.llen(_QUEUE)
        is_new, holder, waiting = commands.execute()
    redis_client.note_back()
    if (is_new or holder == token.encode()) and waiting <= DRAIN.queue_bound:
        current_app.send_task(DRAIN_TASK, kwargs={"asked": True}, queue=_QUEUE, retry=False)


def _failed(error: Exception) -> None:
    metrics.NUDGES_FAILED.inc()
    redis_client.note_lost(error)


_nudger = Nudger("outbox-nudge", _attempt)


def nudge() -> None:
    """Ask for a drain soon. Returns at once, never raises for a Redis that is unavailable."""
    _nudger.want()


def hold_nudges() -> bool:
    """Keep commits from asking, for `nudge_debounce` at most or until `take_nudge`; False if
    Redis is unavailable. A drain that was asked for already starts when this one has ended."""
    try:
        return bool(_redis().set(_KEY, 1, px=round(DRAIN.nudge_debounce * 1000)))
    except redis.RedisError as error:
        _failed(error)
        return False


def take_nudge() -> None:
    """Delete the debounce key, before the claim: commits after this ask again."""
    try:
        _redis().delete(_KEY)
        redis_client.ask_if_back(_redis())
    except redis.RedisError as error:
        _failed(error)
