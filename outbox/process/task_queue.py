"""Celery's queues as bridge, redrive and beat use them: bounded in length, never waited for. A task
carries the step that sent it as a header of its message."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis
from celery import current_app, current_task
from kombu.exceptions import OperationalError

from outbox import redis_client, tracing
from outbox.declaration import Route

__all__ = [
    "COMPRESSION",
    "SENT_AT",
    "oldest_tasks",
    "queue_length",
    "queue_lengths",
    "send",
    "sent_by",
]

_STEP = "traceparent"
SENT_AT = "sent_at"  # the header of each task: seconds since 1970
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


def oldest_tasks(server: redis.Redis, queues: Sequence[str]) -> Mapping[str, float]:
    """Queue -> age in seconds of the task that is next in it; a queue is left out if it is empty, or if a release
    sent the task that did not say when. Raises redis.RedisError."""
    with server.pipeline(transaction=False) as commands:
        for queue in queues:
            commands.lindex(queue, -1)
        found = dict(zip(queues, commands.execute(), strict=True))
    now, ages = time.time(), {}
    for queue, message in found.items():
        with suppress(TypeError, ValueError, KeyError):  # none, or no message of ours
            ages[queue] = max(0.0, now - float(json.loads(message)["headers"][SENT_AT]))
    return ages


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
