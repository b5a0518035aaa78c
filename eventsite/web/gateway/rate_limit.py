"""A token bucket for each caller, in Redis: shared by all web processes, exact, and optional
(docs/http.md#limits). Requests that wait for Redis at the same moment share one round trip.

The first failure opens a breaker: until a probe behind the requests' back was answered in time, nobody
waits for Redis again, and requests are let through and counted."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventsite.web.futures import tell
from eventsite.web.gateway import metrics
from eventsite.web.redis_with_breaker import PROBES_EVERY, RedisWithBreaker
from restapi.lookup import Command

__all__ = ["TAKE", "RateLimit", "RateLimiter", "bucket_of"]

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

    def __init__(
        self,
        limit: RateLimit,
        redis_url: str,
        *,
        patience: float,
        probes_every: float = PROBES_EVERY,
    ) -> None:
        self.limit = limit
        self._redis = RedisWithBreaker(
            redis_url,
            patience=patience,
            logger="gateway",
            lost="rate_limit_open",
            back="rate_limit_closed",
            # A Redis that takes no writes answers a PING.
            probe=self._command(PROBE, 0),
            probes_every=probes_every,
        )
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}
        self._flusher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, or leave that to the probe."""
        await self._redis.connect()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._redis.close()

    async def take(self, caller: str) -> int:
        """0 if the caller may go on, else the whole seconds after which a token is there.

        Never raises and never waits long, whatever has become of Redis.
        """
        if self._redis.is_open:
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
            answers = await self._take({caller: len(each) for caller, each in asked.items()})
            if answers is None:
                released = [*asked.values(), *self._waiting.values()]
                self._waiting = {}
                for future in (future for each in released for future in each):
                    metrics.FAILED_OPEN.inc()
                    tell(future, 0)
                break
            for futures, (taken, milliseconds) in zip(asked.values(), answers, strict=True):
                for number, future in enumerate(futures):
                    tell(future, 0 if number < taken else max(1, math.ceil(milliseconds / 1000)))
        self._flusher = None

    async def _take(self, wanted: Mapping[str, int]) -> Sequence[tuple[int, int]] | None:
        """One EVAL a bucket, all in one round trip; each key alone, as a Redis cluster needs. None
        where one of them has failed."""
        answers = await self._redis.replies([self._command(*each) for each in wanted.items()])
        for refusal in answers or ():
            if isinstance(refusal, Exception):
                self._redis.open(refusal)
                return None
        return answers

    def _command(self, caller: str, count: int) -> Command:
        rate, burst = self.limit.per_second, self.limit.burst
        return ("EVAL", TAKE, 1, bucket_of(caller), repr(rate), burst, count, "")
