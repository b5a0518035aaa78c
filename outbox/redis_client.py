"""The clients of Redis, and the one log line when it no longer takes what is sent.

Each client states how long it waits. None sends a command again by itself, unless it is asked for:
what was applied the first time would be applied twice.

A Redis may answer and still take nothing (full, a replica, loading). That is the same as a Redis that
does not answer, so whoever is about to send asks by `queue_lengths`, which writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cache

import redis
import structlog
from django.conf import settings
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = [
    "ask_if_back",
    "async_client",
    "check",
    "client",
    "lost_lately",
    "no_retry",
    "note_back",
    "note_lost",
    "queue_lengths",
    "shared",
]

PROBE = "outbox:probe"
PROBE_SECONDS = 60

log = structlog.get_logger("outbox.redis")


def no_retry() -> Retry:
    """The policy that sends every command once."""
    return Retry(NoBackoff(), 0)


def client(
    *, answers_within: float, connects_within: float, again: int = 0, url: str = ""
) -> redis.Redis:
    """A client with bounds in seconds, of the broker's Redis unless another is named. `again`: how
    often a command is sent again on a new connection when its answer was lost; only for commands of
    which a repetition does no harm."""
    return redis.Redis.from_url(
        url or settings.REDIS_URL,
        socket_timeout=answers_within,
        socket_connect_timeout=connects_within,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), again),
    )


# One for all of a process that state the same; its pool is a new one after a fork.
shared = cache(client)


def async_client(url: str, *, answers_within: float, connects_within: float) -> redis_asyncio.Redis:
    """The same for an event loop; it sends nothing again."""
    return redis_asyncio.Redis.from_url(
        url,
        socket_timeout=answers_within,
        socket_connect_timeout=connects_within,
        socket_keepalive=True,
        retry=AsyncRetry(NoBackoff(), 0),
    )


def check(server: redis.Redis) -> None:
    """Write one small key that expires. Raises redis.RedisError if Redis takes no writes."""
    server.set(PROBE, 1, ex=PROBE_SECONDS)


def queue_lengths(server: redis.Redis, queues: Sequence[str]) -> list[int]:
    """Tasks that wait in each queue. Raises redis.RedisError if Redis takes none more."""
    with server.pipeline(transaction=False) as commands:
        commands.set(PROBE, 1, ex=PROBE_SECONDS)
        for queue in queues:
            commands.llen(queue)
        return [int(length) for length in commands.execute()[1:]]


class _Outage:
    """Whether this process has lost Redis, and since when (monotonic seconds)."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.since: float | None = None
        self._last = float("-inf")

    def lost_lately(self, seconds: float) -> bool:
        """Whether Redis is lost and was found so less than `seconds` ago: for who would rather do
        without than wait for it again."""
        return self.since is not None and time.monotonic() - self._last < seconds

    def note_lost(self, error: Exception) -> None:
        """Redis did not take what was sent: logged once until `note_back`."""
        with self._guard:
            self._last = time.monotonic()
            if self.since is not None:
                return
            self.since = time.monotonic()
        log.warning("redis_lost", error=str(error) or type(error).__name__)

    def note_back(self) -> None:
        """Redis has taken a write: logged if it was lost before."""
        with self._guard:
            if self.since is None:
                return
            seconds, self.since = time.monotonic() - self.since, None
        log.warning("redis_back", seconds=round(seconds, 1))


_outage = _Outage()
lost_lately, note_lost, note_back = _outage.lost_lately, _outage.note_lost, _outage.note_back


def ask_if_back(server: redis.Redis) -> None:
    """After an answer that says nothing of writes: if Redis was lost, find out by one. Raises
    redis.RedisError if it still is."""
    if _outage.since is not None:
        check(server)
        note_back()
