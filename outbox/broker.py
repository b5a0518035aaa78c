"""Celery's queues as bridge, redrive and beat use them: bounded in length, never waited for.

A task carries the step that sent it as a header of its message, which workers that know nothing of
it pass over.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import redis
import structlog
from celery import current_app, current_task
from django.conf import settings
from kombu.exceptions import OperationalError

from outbox import tracing
from outbox.conf import Route

__all__ = ["COMPRESSION", "queue_length", "send", "sent_by"]

_STEP = "traceparent"
COMPRESSION = "application/zstd"  # kombu's name; a chunk takes a fifth of its bytes

log = structlog.get_logger("outbox.broker")


def queue_length(queue: str) -> float:
    """Tasks that wait in a queue; infinite while Redis is away. What is sent only while this is
    small keeps Redis bounded when nobody works a queue off."""
    try:
        return int(_redis().llen(queue))
    except redis.RedisError:
        return math.inf


def send(route: Route, **arguments: Any) -> bool:
    """Put a task of the route's handler on its queue; False if Redis is away, which is logged."""
    traceparent = tracing.current_traceparent()
    try:
        current_app.send_task(
            route.task,
            kwargs=arguments,
            queue=route.queue,
            retry=False,
            compression=COMPRESSION,
            headers={_STEP: traceparent} if traceparent else None,
        )
    except (OperationalError, redis.RedisError, OSError) as error:
        tracing.record_error(error)
        log.warning("celery_unavailable", handler=route.handler, error=str(error))
        return False
    return True


def sent_by() -> str:
    """The traceparent of the step that sent the running task; empty if it sent none."""
    headers = current_task.request.headers if current_task else None
    return str((headers or {}).get(_STEP, ""))


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1.0, socket_connect_timeout=0.5)
