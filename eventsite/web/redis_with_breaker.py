"""The Redis of requests: the commands of all that wait go in one round trip, and no request waits for a
Redis that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis
import structlog

from outbox import redis_client
from restapi.lookup import Command

__all__ = ["PROBES_EVERY", "RedisWithBreaker"]

PROBES_EVERY = 0.5  # seconds
CONNECTS_WITHIN = 1.0  # seconds, at start and by the probe, never in a request


class RedisWithBreaker:
    """One connection at a time to one Redis. The first failure opens a breaker: until a probe behind
    the requests' back was answered in time, commands have no replies. Belongs to one event loop.

    patience    seconds for an answer
    probe       the command whose reply must come in time, and be no refusal
    lost, back  the log lines of the breaker, with this logger
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float,
        logger: str,
        lost: str,
        back: str,
        probe: Command = ("PING",),
        probes_every: float = PROBES_EVERY,
    ) -> None:
        self.patience = patience
        self.probes_every = probes_every
        self.is_open = False  # the breaker
        self._connects_within = max(CONNECTS_WITHIN, patience)
        self._redis = redis_client.async_client(
            url, answers_within=self._connects_within, connects_within=self._connects_within
        )
        self._log = structlog.get_logger(logger)
        self._lost, self._back = lost, back
        self._probe = probe
        self._prober: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Now, or leave that to the probe."""
        try:
            await self._check()
        except Exception as error:  # noqa: BLE001
            self.open(error)

    async def replies(self, commands: Sequence[Command]) -> Sequence[Any] | None:
        """The reply to each, an exception where Redis has refused it; None where it is unavailable. What was
        sent may be done all the same, also later."""
        if self.is_open:
            return None
        try:
            async with asyncio.timeout(self.patience):
                return await self._send(commands)
        except Exception as error:  # noqa: BLE001  (whatever it is, nobody waits for it)
            self.open(error)
            return None

    def open(self, error: Exception) -> None:
        """Nobody waits for this Redis until the probe finds it well."""
        self._log.warning(self._lost, error=str(error) or type(error).__name__)
        self.is_open = True
        if self._prober is None or self._prober.done():
            self._prober = asyncio.get_running_loop().create_task(self._probe_until_back())

    async def close(self) -> None:
        """Let go of the connection."""
        if self._prober is not None:
            self._prober.cancel()
        await self._redis.aclose()

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

    async def _probe_until_back(self) -> None:
        while self.is_open:
            await asyncio.sleep(self.probes_every)
            with suppress(Exception):  # not yet
                await self._check()
        self._log.info(self._back)

    async def _check(self) -> None:
        """Close the breaker, once the probe is answered on an open connection, and quickly enough."""
        async with asyncio.timeout(self._connects_within):
            await self._redis.ping()
        async with asyncio.timeout(self.patience):
            [reply] = await self._send([self._probe])
        if isinstance(reply, Exception):
            raise reply
        self.is_open = False
