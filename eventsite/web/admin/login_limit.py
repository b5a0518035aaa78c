"""How often somebody may try to log in: a token bucket for each address and one for each user.

A try takes a token of both before the password is looked at. A login that succeeds fills the user's
bucket again, not that of the address. While Redis is unavailable each process keeps its own buckets."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from functools import cache

import redis
import structlog

from eventsite.web.gateway.rate_limit import TAKE, RateLimit, bucket_of
from outbox import redis_client

__all__ = ["OF_ADDRESS", "OF_USER", "LoginLimit", "login_limit"]

OF_ADDRESS = RateLimit.parse("10/m burst 20")
OF_USER = RateLimit.parse("2/m burst 10")
REDIS_SECONDS = 0.5
BUCKETS = 10_000  # that a process keeps while Redis is unavailable; the oldest goes

log = structlog.get_logger("eventsite.admin")


class LoginLimit:
    """The buckets."""

    def __init__(self, server: redis.Redis) -> None:
        self._server = server
        self._own: dict[
            str, tuple[float, float]
        ] = {}  # tokens, and when, while Redis is unavailable

    def take(self, address: str, user: str) -> int:
        """0 if a login may be tried, else the seconds after which it may."""
        return max(self._take(name, limit) for name, limit in _buckets(address, user).items())

    def forget_user(self, user: str) -> None:
        """This user has logged in."""
        name = _of_user(user)
        self._own.pop(name, None)
        try:
            self._server.delete(bucket_of(name))
        except redis.RedisError as error:
            log.warning("login_limit_without_redis", error=str(error))

    def _take(self, name: str, limit: RateLimit) -> int:
        try:
            taken, milliseconds = self._server.eval(
                TAKE, 1, bucket_of(name), repr(limit.per_second), str(limit.burst), "1", ""
            )
        except redis.RedisError as error:
            log.warning("login_limit_without_redis", error=str(error))
            return self._take_own(name, limit)
        return 0 if taken else max(1, math.ceil(milliseconds / 1000))

    def _take_own(self, name: str, limit: RateLimit) -> int:
        now = time.monotonic()
        tokens, at = self._own.pop(name, (float(limit.burst), now))
        tokens = min(limit.burst, tokens + (now - at) * limit.per_second)
        taken = tokens >= 1
        self._own[name] = (tokens - taken, now)
        if len(self._own) > BUCKETS:
            del self._own[next(iter(self._own))]
        return 0 if taken else max(1, math.ceil((1 - tokens) / limit.per_second))


def _buckets(address: str, user: str) -> Mapping[str, RateLimit]:
    return {f"login:address:{address}": OF_ADDRESS, _of_user(user): OF_USER}


def _of_user(user: str) -> str:
    """By a digest: people type their password into the wrong field."""
    return f"login:user:{hashlib.sha256(user.casefold().encode()).hexdigest()[:32]}"


@cache
def login_limit() -> LoginLimit:
    """Of this process."""
    return LoginLimit(
        redis_client.client(answers_within=REDIS_SECONDS, connects_within=REDIS_SECONDS)
    )
