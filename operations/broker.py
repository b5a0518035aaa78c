"""What Redis says: the processes, the lengths of Celery's queues, its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import redis
from django.conf import settings

from outbox import redis_client
from outbox.process.heartbeat import SeenProcess, kinds_seen, processes_seen

__all__ = ["FromRedis", "ask_redis", "has_run", "processes"]

ANSWERS_WITHIN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRedis:
    """`kinds`: of processes that ever ran here; `queues`: Celery queue -> tasks that wait; bytes; `limit`
    0: none; `up` in seconds."""

    processes: Sequence[SeenProcess]
    kinds: frozenset[str]
    queues: Mapping[str, int]
    version: str
    up: float
    memory: int
    limit: int
    policy: str


def ask_redis() -> FromRedis:
    """All of it. Raises redis.RedisError, also where Redis takes no writes."""
    server = _redis()
    names = [queue for queues in settings.WIRING.roles.values() for queue in queues]
    lengths = redis_client.queue_lengths(server, names)
    told = cast(Mapping[str, Any], server.info())
    return FromRedis(
        processes=processes_seen(server),
        kinds=kinds_seen(server),
        queues=dict(zip(names, lengths, strict=True)),
        version=str(told.get("redis_version", "")),
        up=float(told.get("uptime_in_seconds", 0)),
        memory=int(told.get("used_memory", 0)),
        limit=int(told.get("maxmemory", 0)),
        policy=str(told.get("maxmemory_policy", "")),
    )


def processes() -> Sequence[SeenProcess]:
    """Those that say that they live, or said so a moment ago. Raises redis.RedisError."""
    return processes_seen(_redis())


def has_run(kind: str) -> bool:
    """Whether a process of this kind has ever run here. Raises redis.RedisError."""
    return kind in kinds_seen(_redis())


@cache
def _redis() -> redis.Redis:
    return redis_client.client(answers_within=ANSWERS_WITHIN, connects_within=ANSWERS_WITHIN)
