"""A limiter that paces: over all workers, no window of a second has more tokens than the limit.

It never refuses and never drops. A caller that gets no tokens gets the time to ask again. Callers that wait share
what there is by weight; see outbox/pacing/scripts.py for how, and README.md for what is promised.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import redis

from outbox import redis_client
from outbox.pacing.scripts import DRAW, GIVE_BACK

__all__ = ["Draw", "LocalShare", "PacedLimiter"]

SLICE_SECONDS = 0.1  # of tokens that may be drawn at a time


@dataclass(frozen=True, slots=True)
class Draw:
    """Tokens that were given, and when to ask for more.

    wait_ms  milliseconds after which the rest is worth asking for; 0: all that was wanted was given
    request  names the draw when tokens are given back
    """

    tokens: int
    wait_ms: int
    request: str = ""


class PacedLimiter:
    """One limit, in Redis, shared by all processes. Both commands may arrive twice.

    name    of the limit; its keys share the hash tag {name}
    shares  weight of each who may ask, the most important first
    """

    def __init__(
        self,
        name: str,
        *,
        per_second: float,
        shares: Mapping[str, int],
        server: redis.Redis | None = None,
    ) -> None:
        self.per_second = per_second
        self.keys = tuple(f"pacing:{{{name}}}:{part}" for part in ("state", "log", "given"))
        self._shares = dict(shares)
        self._listed = [each for share in shares.items() for each in share]
        # Once more is harmless: a request that was answered gets the same answer.
        self._server = server or redis_client.shared(
            answers_within=0.2, connects_within=0.2, again=1
        )
        self._draw = self._server.register_script(DRAW)
        self._give_back = self._server.register_script(GIVE_BACK)
        self._owner = f"{os.getpid()}-{uuid4().hex[:12]}"
        self._numbers = itertools.count()

    def draw(self, asker: str, wanted: int, *, at: int | None = None) -> Draw:
        """Up to `wanted` tokens. Raises redis.RedisError when Redis does not say.

        `at`: microseconds, in place of Redis's clock.
        """
        request = f"{self._owner}-{next(self._numbers)}"
        tokens, wait_ms = self.ask(request, asker, wanted, at=at)
        return Draw(tokens, wait_ms, request)

    def ask(
        self, request: str, asker: str, wanted: int, *, at: int | None = None
    ) -> tuple[int, int]:
        """The command itself: tokens and milliseconds. The same request gets the same tokens."""
        clock = "" if at is None else at
        arguments = (request, asker, wanted, repr(self.per_second), clock, *self._listed)
        tokens, wait_ms = self._draw(keys=self.keys, args=arguments)
        return int(tokens), int(wait_ms)

    def give_back(self, draw: Draw, asker: str, count: int) -> int:
        """Tokens of a draw that were not used; returns how many were taken back, once a draw."""
        if not count:
            return 0
        arguments = (draw.request, asker, self._shares[asker], count, repr(self.per_second))
        return int(self._give_back(keys=self.keys, args=arguments))


class LocalShare:
    """What one process may send while Redis cannot say: its part of the limit, evenly, from none.

    At most the tokens of a tenth of a second wait to be taken.
    """

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at = time.monotonic()

    def draw(self, wanted: int, *, per_second: float) -> Draw:
        """Up to `wanted` tokens at `per_second`, which may differ from draw to draw."""
        now = time.monotonic()
        most = max(1.0, per_second * SLICE_SECONDS)
        self._tokens = min(most, self._tokens + (now - self._at) * per_second)
        self._at = now
        got = min(wanted, int(self._tokens))
        self._tokens -= got
        if got == wanted:
            return Draw(got, 0)
        return Draw(got, max(1, round(min(1 / per_second, 1.0) * 1000)))

    def give_back(self, count: int) -> None:
        self._tokens += count

    def begin_empty(self) -> None:
        """Redis was there until now, and gave what it gave: nothing is saved up."""
        self._tokens, self._at = 0.0, time.monotonic()
