"""The Redis of hot paths: the commands of all waiting requests go in one round trip, and no
request waits for a Redis that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis
import structlog

from outbox import redis_client
from restapi.lookup import Command

__all__ = ["RedisLane"]

PATIENCE = 0.1  # seconds for an answer; PostgreSQL has it as well
PROBES_EVERY = 0.5  # seconds
CONNECTS_WITHIN = 1.0  # seconds, by the probe, never in a request

log = structlog.get_logger("hot_paths")


class RedisLane:
    """One connection at a time to one Redis. The first failure opens a breaker: until a probe behind
    the requests' back was answered in time, commands have no replies. Belongs to one event loop."""

    def __init__(self, url: str) -> None:
        self._redis = redis_client.async_client(
            url, answers_within=CONNECTS_WITHIN, connects_within=CONNECTS_WITHIN
        )
        self._is_open = False  # the breaker
        self._probe: asyncio.Task[None] | None = None

    async def replies(self, commands: Sequence[Command]) -> Sequence[Any] | None:
        """The reply to each, an exception where Redis has refused it; None where it is unavailable. What was
        sent may be done all the same, also later."""
        if self._is_open:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._send(commands)
        except (redis.RedisError, OSError) as error:
            self._open(error)
            return None

    async def _send(self, commands: Sequence[Command]) -> Sequence[Any]:
        if len(commands) == 1:
            try:
                return [await self._redis.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except redis.ResponseError as error:
                return [error]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))

    def _open(self, error: Exception) -> None:
        log.warning("hot_path_redis_lost", error=str(error) or type(error).__name__)
        self._is_open = True
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        while self._is_open:
            await asyncio.sleep(PROBES_EVERY)
            try:
                await self._redis.ping()  # may connect, which takes longer than an answer
                async with asyncio.timeout(PATIENCE):
                    await self._redis.ping()
            except (redis.RedisError, OSError):
                continue
            self._is_open = False
        log.info("hot_path_redis_back")

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        await self._redis.aclose()
