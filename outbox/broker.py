"""Celery's queues as bridge, redrive and beat use them: bounded in length, never waited for."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import redis
import structlog
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

from outbox.conf import Route

__all__ = ["queue_length", "send"]

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
    try:
        current_app.send_task(route.task, kwargs=arguments, queue=route.queue, retry=False)
    except (OperationalError, redis.RedisError, OSError) as error:
        log.warning("celery_unavailable", handler=route.handler, error=str(error))
        return False
    return True


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1.0, socket_connect_timeout=0.5)
