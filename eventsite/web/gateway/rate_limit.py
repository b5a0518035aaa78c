"""A token bucket for each caller, in Redis: shared by all web processes, exact, and optional
(docs/http.md#limits). Requests that wait for Redis at the same moment share one round trip.

The first failure opens a breaker: until a probe behind the requests' back was answered in time, nobody
waits for Redis again, and requests are let through and counted."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from eventsite.web.gateway import metrics
from outbox import redis_client

__all__ = ["TAKE", "RateLimit", "RateLimiter", "bucket_of"]

CONNECTS_WITHIN = 1.0  # seconds, at start and by the probe, never in a request
PROBES_EVERY = 0.5  # seconds
PROBE = "probe"  # a bucket without a caller: callers are `key:...` or `address:...`

# KEYS: the bucket. ARGV: tokens a second, burst, tokens wanted, and the time in microseconds ("" is
# Redis's own clock, the one that all processes share). Gives how many were taken, and the
# milliseconds until there is a next one. A bucket that is full again expires: absent means full. A
# clock that was set back refills nothing for that moment.
TAKE = """
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(kept[1]) or burst, tonumber(kept[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000000)
local taken = math.min(wanted, math.floor(tokens + 0.000001))
tokens = math.max(0, tokens - taken)
redis.call('HSET', KEYS[1], 'tokens', string.format('%.9f', tokens), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens) / rate * 1000) + 1000)
return {taken, math.ceil((1 - tokens) / rate * 1000)}
"""

_TEXT = re.compile(r"(\d+(?:\.\d+)?)/([smh])(?: burst (\d+))?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}

log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`per_second` tokens a second, `burst` at once; `text` is how it was set."""

    per_second: float
    burst: int
    text: str

    @classmethod
    def parse(cls, text: str) -> RateLimit:
        """From "100/s burst 200", "300/m"; without a burst, that of one second (at least 1).
        Raises ValueError."""
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"RATE_LIMIT={text} is not a limit; write it like 100/s burst 200.")
        per_second = float(found[1]) / _SECONDS[found[2]]
        burst = int(found[3]) if found[3] else max(1, math.ceil(per_second))
        if per_second == 0 or burst == 0:
            raise ValueError(f"RATE_LIMIT={text} allows no request; unset it for no limit.")
        return cls(per_second, burst, text.strip())


def bucket_of(caller: str) -> str:
    """The Redis key of a caller's bucket."""
    return f"rate_limit:{caller}"


class RateLimiter:
    """Belongs to one event loop, and to `start` and `close` around its use.

    `patience`: seconds for one round trip; a request waits for two at most.
    """

    def __init__(self, limit: RateLimit, redis_url: str, *, patience: float) -> None:
        self.limit = limit
        self.patience = patience
        self._connects_within = max(CONNECTS_WITHIN, patience)
        self._redis = redis_client.async_client(
            redis_url, answers_within=self._connects_within, connects_within=self._connects_within
        )
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._is_open = True  # the breaker: nobody waits for Redis

    async def start(self) -> None:
        """Connect, or leave that to the probe."""
        try:
            await self._check()
        except Exception as error:  # noqa: BLE001
            self._open(error)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._probe is not None:
            self._probe.cancel()
        await self._redis.aclose()

    async def take(self, caller: str) -> int:
        """0 if the caller may go on, else the whole seconds after which a token is there.

        Never raises and never waits long, whatever has become of Redis.
        """
        if self._is_open:
            metrics.FAILED_OPEN.inc()
            return 0
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting.setdefault(caller, []).append(future)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                async with asyncio.timeout(self.patience):
                    answers = await self._take({c: len(each) for c, each in asked.items()})
            except Exception as error:  # noqa: BLE001  (whatever it is, nobody waits for it)
                self._open(error)
                released = [*asked.values(), *self._waiting.values()]
                self._waiting = {}
                for future in (future for each in released for future in each):
                    metrics.FAILED_OPEN.inc()
                    _tell(future, 0)
                break
            for futures, (taken, milliseconds) in zip(asked.values(), answers, strict=True):
                for number, future in enumerate(futures):
                    _tell(future, 0 if number < taken else max(1, math.ceil(milliseconds / 1000)))
        self._flusher = None

    async def _take(self, wanted: Mapping[str, int]) -> list[tuple[int, int]]:
        """One EVAL a bucket, all in one round trip; each key alone, as a Redis cluster needs."""
        async with self._redis.pipeline(transaction=False) as commands:
            for caller, count in wanted.items():
                rate, burst = self.limit.per_second, self.limit.burst
                commands.eval(TAKE, 1, bucket_of(caller), repr(rate), burst, count, "")
            return await commands.execute()

    def _open(self, error: Exception) -> None:
        log.warning("rate_limit_open", error=str(error) or type(error).__name__)
        self._is_open = True
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        while self._is_open:
            await asyncio.sleep(PROBES_EVERY)
            with suppress(Exception):  # not yet
                await self._check()
        log.info("rate_limit_closed")

    async def _check(self) -> None:
        """Close the breaker, once a bucket was asked on an open connection, and quickly enough: a
        Redis that takes no writes answers a PING."""
        async with asyncio.timeout(self._connects_within):
            await self._redis.ping()
        async with asyncio.timeout(self.patience):
            await self._take({PROBE: 0})
        self._is_open = False


def _tell(future: asyncio.Future[int], seconds: int) -> None:
    if not future.done():  # else the caller has hung up
        future.set_result(seconds)
