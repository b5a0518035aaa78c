"""Checks that the servers have safe settings (guarantees.md#r2 and #r21), and reports what is wrong.

A violation is an error if OUTBOX_STRICT_SERVERS is set (production), otherwise a warning. A violation whose
risk is accepted by name (ACCEPTED_RISKS) is always a warning. One that would break the order of keys cannot
be accepted.
"""

from __future__ import annotations

from dataclasses import replace

from django.conf import settings

from outbox.upkeep.check_result import CheckResult, Level
from outbox.upkeep.kafka_checks import check_kafka
from outbox.upkeep.postgres_checks import check_postgresql
from outbox.upkeep.redis_checks import check_redis

__all__ = ["CheckResult", "Level", "check_servers"]


def check_servers() -> list[CheckResult]:
    """Check all servers. A server that does not answer gives one error."""
    strict = settings.OUTBOX_STRICT_SERVERS
    accepted = set(settings.OUTBOX_ACCEPTED_RISKS)
    results = [
        *check_postgresql(),
        *check_kafka(),
        *check_redis(),
    ]
    known = {result.risk for result in results} - {""}
    graded = [_graded(result, strict=strict, accepted=accepted) for result in results]
    graded += [
        CheckResult(
            Level.WARNING,
            "settings",
            f"ACCEPTED_RISKS names {name}",
            means="No check has a risk of this name. Remove it from ACCEPTED_RISKS.",
        )
        for name in sorted(accepted - known)
    ]
    return graded


def _graded(result: CheckResult, *, strict: bool, accepted: set[str]) -> CheckResult:
    if result.level is Level.OK or not result.risk:
        return result
    if result.risk in accepted:
        means = f"Accepted as {result.risk}: {result.means}"
        return replace(result, level=Level.WARNING, means=means)
    return result if strict else replace(result, level=Level.WARNING)
