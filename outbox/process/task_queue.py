"""Celery's queues as bridge, redrive and beat use them: bounded in length, never waited for. A task
carries the step that sent it as a header of its message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from celery import current_app, current_task
from kombu.exceptions import OperationalError

from outbox import redis_client, tracing
from outbox.declaration import Route

__all__ = ["COMPRESSION", "queue_length", "queue_lengths", "send", "sent_by"]

_STEP = "traceparent"
COMPRESSION = "application/zstd"  # kombu's name; a chunk takes a fifth of its bytes


def queue_lengths(queues: Sequence[str]) -> Mapping[str, float]:
    """Tasks that wait in each queue; infinite while Redis takes none, which is logged once. What is
    sent only while this is small keeps Redis bounded when nobody works a queue off."""
    try:
        server = redis_client.shared(answers_within=1.0, connects_within=0.5)
        lengths = redis_client.queue_lengths(server, queues)
    except redis.RedisError as error:
        redis_client.note_lost(error)
        return dict.fromkeys(queues, math.inf)
    redis_client.note_back()
    return dict(zip(queues, lengths, strict=True))


def queue_length(queue: str) -> float:
    """The same of one."""
    return queue_lengths([queue])[queue]


def send(route: Route, **arguments: Any) -> bool:
    """Put a task of the route's handler on its queue; False if Redis did not take it, which is
    logged once. It may have arrived nevertheless: a task that runs twice has its effect once
    (guarantees.md#r8)."""
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
        redis_client.note_lost(error)
        return False
    return True


def sent_by() -> str:
    """The traceparent of the step that sent the running task; empty if it sent none."""
    headers = current_task.request.headers if current_task else None
    return str((headers or {}).get(_STEP, ""))
