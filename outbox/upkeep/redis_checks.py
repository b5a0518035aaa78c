"""Redis as the code needs it, and what is wrong where it does not let us in."""

from __future__ import annotations

import re
from collections.abc import Mapping

import redis

from outbox import redis_client
from outbox.upkeep.check_result import CheckResult, Level, judge

__all__ = ["MAY", "check_redis"]

# What our user must be allowed to do, as Redis writes it.
MAY = "~* &* +@all -@admin -@dangerous +info"

# What the client says (the first that fits) -> what to do.
_SAID = (
    (r"invalid username-password|WRONGPASS", "REDIS_URL has another user or password."),
    (
        r"Authentication required|NOAUTH",
        "REDIS_URL has no user and password, and Redis wants them.",
    ),
    (r"no permissions|NOPERM", f"The user of REDIS_URL may do too little. It needs {MAY}."),
    (r"mismatch|not valid for", "REDIS_URL names it otherwise than its certificate does."),
    (
        r"certificate verify failed",
        "The file of ssl_ca_certs in REDIS_URL does not hold who signed its certificate.",
    ),
    (r"wrong version number|record layer", "It speaks no TLS here: redis:// instead of rediss://."),
    (
        r"Connection closed|Connection reset",
        "It closes the connection at once, as one that wants TLS does: rediss:// in REDIS_URL.",
    ),
)


def check_redis() -> list[CheckResult]:
    """Its policy for a full memory; one error if it does not answer, or not to us."""
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
            means="A full Redis forgets tasks in silence; chunks are sent again after their deadline, "
            "other tasks wait for beat. Set it to noeviction.",
        )
    ]


def _away(said: str) -> CheckResult:
    for pattern, means in _SAID:
        if re.search(pattern, said, re.IGNORECASE):
            return CheckResult(Level.ERROR, "redis", said, means=means)
    return CheckResult(
        Level.ERROR, "redis", f"no answer: {said}", means="Start it, or wait for it."
    )
