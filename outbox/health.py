"""Whether the servers behind a process answer; every check is bounded in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from outbox.kafka import admin

__all__ = ["Readiness", "readiness"]

TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """`checks`: server name -> "healthy" | "unhealthy"."""

    checks: Mapping[str, str]

    @property
    def status(self) -> str:
        """`not ready` without the database, `degraded` without Kafka or Redis, else `ready`."""
        if self.checks["database"] != "healthy":
            return "not ready"
        return "ready" if set(self.checks.values()) == {"healthy"} else "degraded"

    def http_status(self, *, strict: bool) -> int:
        """503 when not ready; `strict` counts degraded as not ready."""
        failed = self.status != "ready" if strict else self.status == "not ready"
        return 503 if failed else 200


def readiness() -> Readiness:
    """Ask all three at once."""
    return Readiness(checks=_all({"database": _database, "kafka": _kafka, "redis": _redis}))


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
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def _kafka() -> None:
    admin.ping(TIMEOUT)


def _redis() -> None:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
    )
    with client:
        client.ping()
