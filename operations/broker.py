"""What the page reads from Redis: the processes, the lengths of Celery's queues, the memory of Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import redis
from django.conf import settings

from operations.reading import reason_of
from outbox import redis_client
from outbox.process.heartbeat import SeenProcess, kinds_seen, processes_seen
from outbox.process.task_queue import oldest_tasks
from outbox.rabbitmq.policy import configured

__all__ = ["FEED_CACHE", "FromRedis", "OtherRedis", "ask_redis", "has_run", "processes"]

ANSWERS_WITHIN = 1.0
FEED_CACHE = "the feed cache"
_CLAIMS_END = "the relay claims nothing more, and publishes repetitions"
_CACHE_ENDS = "no more feeds are cached: they are read from PostgreSQL"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRedis:
    """One reading. `others`: the Redis servers beside this one.

    kinds          kinds of processes that ever ran here
    queues         Celery queue -> number of waiting tasks
    oldest         Celery queue -> age of its oldest task in seconds, where it is known
    up             seconds since Redis started
    memory, limit  bytes; limit 0: there is none
    policy         what Redis does at the limit (`maxmemory-policy`)
    """

    processes: Sequence[SeenProcess]
    kinds: frozenset[str]
    queues: Mapping[str, int]
    version: str
    up: float
    memory: int
    limit: int
    policy: str
    others: Sequence[OtherRedis] = ()
    oldest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRedis:
    """A Redis beside the broker's; as in FromRedis. `error`: why nothing is known of it."""

    name: str
    ends: str
    memory: int = 0
    limit: int = 0
    policy: str = ""
    error: str = ""


def ask_redis() -> FromRedis:
    """Read all of it. Raises redis.RedisError, also if Redis takes no writes."""
    server = _redis()
    names = [queue for queues in settings.WIRING.roles.values() for queue in queues]
    lengths = redis_client.queue_lengths(server, names)
    queues = dict(zip(names, lengths, strict=True))
    info = _info(server)
    return FromRedis(
        processes=processes_seen(server),
        kinds=kinds_seen(server),
        queues=queues,
        version=str(info.get("redis_version", "")),
        up=float(info.get("uptime_in_seconds", 0)),
        **_memory(info),
        others=_others(str(info.get("run_id", ""))),
        oldest=oldest_tasks(server, [name for name, length in queues.items() if length]),
    )


def _others(run_id: str) -> list[OtherRedis]:
    """The Redis of the relay's claims and of the cached feeds, where it is a server of its own."""
    policy = configured()
    found: list[OtherRedis] = []
    known = {run_id}
    for name, url, ends in (
        ("the relay's claims", policy.dedupe_url if policy.dedupe else "", _CLAIMS_END),
        (FEED_CACHE, settings.FEED_CACHE_URL, _CACHE_ENDS),
    ):
        if not url or url == settings.REDIS_URL:
            continue
        try:
            info = _info(_redis(url=url))
        except (redis.RedisError, OSError) as error:
            found.append(OtherRedis(name=name, ends=ends, error=reason_of(error)))
            continue
        # Another address may lead to the same server.
        if (own := str(info.get("run_id", ""))) in known:
            continue
        known.add(own)
        found.append(OtherRedis(name=name, ends=ends, **_memory(info)))
    return found


def _info(server: redis.Redis) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], server.info())


def _memory(info: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "memory": int(info.get("used_memory", 0)),
        "limit": int(info.get("maxmemory", 0)),
        "policy": str(info.get("maxmemory_policy", "")),
    }


def processes() -> Sequence[SeenProcess]:
    """The processes whose heartbeat is there, or ended a moment ago. Raises redis.RedisError."""
    return processes_seen(_redis())


def has_run(kind: str) -> bool:
    """Whether a process of this kind has ever run here. Raises redis.RedisError."""
    return kind in kinds_seen(_redis())


_redis = partial(redis_client.shared, answers_within=ANSWERS_WITHIN, connects_within=ANSWERS_WITHIN)
