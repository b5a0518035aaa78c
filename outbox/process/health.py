"""Whether the servers behind a process answer; every check is bounded in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import redis
from django.db import DatabaseError, InterfaceError, connection

from outbox import redis_client
from outbox.database import patience
from outbox.database.ask import rows_of
from outbox.kafka import admin
from outbox.watching import RED, WITHOUT

__all__ = ["ReadinessAnswer", "readiness"]

TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ReadinessAnswer:
    """`checks`: server name -> "healthy" | "unhealthy"; `needed`: those without which nothing can be
    done."""

    checks: Mapping[str, str]
    needed: frozenset[str] = frozenset(name for name, state in WITHOUT.items() if state == RED)

    @property
    def status(self) -> str:
        """`not ready` without what is needed, `degraded` if anything else is unhealthy, else
        `ready`."""
        if any(self.checks[name] != "healthy" for name in self.needed):
            return "not ready"
        return "ready" if set(self.checks.values()) == {"healthy"} else "degraded"

    def http_status(self, *, strict: bool) -> int:
        """503 when not ready; `strict` counts degraded as not ready."""
        failed = self.status != "ready" if strict else self.status == "not ready"
        return 503 if failed else 200


def readiness(own: Mapping[str, Callable[[], bool]] = {}) -> ReadinessAnswer:
    """Ask all three at once. `own`: what the process itself must say yes to, else it is degraded."""
    servers = _all({"database": _database, "kafka": partial(admin.ping, TIMEOUT), "redis": _redis})
    said = {name: "healthy" if is_well() else "unhealthy" for name, is_well in own.items()}
    return ReadinessAnswer(checks=servers | said)


def _all(checks: Mapping[str, Callable[[], None]]) -> dict[str, str]:
    results = dict.fromkeys(checks, "unhealthy")

    def run(name: str, check: Callable[[], None]) -> None:
        try:
            check()
        except (DatabaseError, InterfaceError, redis.RedisError, admin.KafkaUnavailable, OSError):
            return
        results[name] = "healthy"

    threads = [
        threading.Thread(target=run, args=item, daemon=True, name=f"health-{item[0]}")
        for item in checks.items()
    ]
    give_up = time.monotonic() + 2 * TIMEOUT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return dict(results)


def _database() -> None:
    with patience.within(2 * TIMEOUT):
        try:
            rows_of("SELECT 1")
        finally:
            connection.close()


def _redis() -> None:
    with redis_client.client(answers_within=TIMEOUT, connects_within=TIMEOUT) as client:
        redis_client.check(client)
