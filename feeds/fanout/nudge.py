"""The nudge: after slices are committed, one Celery task that applies them now (guarantees.md#r7). A
worker calls it after an effect has committed, so it waits for Redis only for a moment."""

from __future__ import annotations

from functools import partial

import redis
from celery import current_app
from kombu.exceptions import OperationalError

from feeds import metrics
from outbox import redis_client

__all__ = ["APPLY_TASK", "nudge", "take_nudge"]

APPLY_TASK = "feeds.apply_slices"
# A queue of its own: cutting posts into slices must not wait behind applying them.
QUEUE = "fanout"
_KEY = "feeds:nudge"
_ASKED_FOR_MS = 500
_WAITING = 4  # tasks at most that a nudge puts into the queue


_redis = partial(redis_client.shared, answers_within=1.0, connects_within=0.5)


def nudge() -> None:
    """Ask for a run soon, unless somebody has asked already. Never raises for a Redis that is unavailable."""
    try:
        with _redis().pipeline(transaction=False) as commands:
            commands.set(_KEY, 1, nx=True, px=_ASKED_FOR_MS)
            commands.llen(QUEUE)
            is_first, waiting = commands.execute()
        if is_first and waiting < _WAITING:
            current_app.send_task(APPLY_TASK, queue=QUEUE, retry=False)
    except (redis.RedisError, OperationalError, OSError):
        metrics.NUDGES_FAILED.inc()


def take_nudge() -> None:
    """A run begins: commits after this ask again."""
    try:
        _redis().delete(_KEY)
    except redis.RedisError:
        metrics.NUDGES_FAILED.inc()
