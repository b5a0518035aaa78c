"""The checks of Redis, and advice for each reason why it refuses a connection."""

from __future__ import annotations

import re
from collections.abc import Mapping

import redis

from outbox import redis_client
from outbox.upkeep.check_result import CheckResult, Level, judge

__all__ = ["MAY", "check_redis"]

# The permissions that the user of REDIS_URL needs, in the syntax of Redis.
MAY = "~* &* +@all -@admin -@dangerous +info"

# A pattern of the client's error -> what to do. The first match counts.
_SAID = (
    (
        r"invalid username-password|WRONGPASS",
        "Redis refuses the user or password of REDIS_URL. Correct them.",
    ),
    (
        r"Authentication required|NOAUTH",
        "Redis requires a login. Add user and password to REDIS_URL.",
    ),
    (r"no permissions|NOPERM", f"The user of REDIS_URL lacks permissions. It needs {MAY}."),
    (
        r"mismatch|not valid for",
        "The certificate of Redis is for another host name. Use that name in REDIS_URL.",
    ),
    (
        r"certificate verify failed",
        "The file of ssl_ca_certs in REDIS_URL lacks the authority that signed the certificate of Redis.",
    ),
    (
        r"wrong version number|record layer",
        "Redis does not speak TLS on this port. Use redis:// instead of rediss:// in REDIS_URL.",
    ),
    (
        r"Connection closed|Connection reset",
        "Redis closes the connection at once; it probably requires TLS. Use rediss:// in REDIS_URL.",
    ),
)


def check_redis() -> list[CheckResult]:
    """The check of its policy for a full memory; one error if it does not answer or refuses the connection."""
    try:
        with redis_client.client(answers_within=5.0, connects_within=5.0) as client:
            redis_client.check(client)
            memory: Mapping[str, object] = client.info("memory")
    except (redis.RedisError, OSError) as error:
        return [_away(str(error))]
    policy = memory.get("maxmemory_policy", "unknown")
    return [
        judge(
            "redis",
            f"maxmemory-policy = {policy}",
            good=policy == "noeviction",
            risk="redis-evicts",
            means="With this policy a full Redis silently deletes tasks; chunks are sent again after their deadline, "
            "other tasks wait for beat. Set maxmemory-policy to noeviction.",
        )
    ]


def _away(said: str) -> CheckResult:
    for pattern, means in _SAID:
        if re.search(pattern, said, re.IGNORECASE):
            return CheckResult(Level.ERROR, "redis", said, means=means)
    return CheckResult(
        Level.ERROR, "redis", f"no answer: {said}", means="Start Redis, or wait until it answers."
    )
