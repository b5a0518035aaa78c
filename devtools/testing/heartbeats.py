"""The table of processes in Redis, for tests that count who is in it."""

from __future__ import annotations

import redis
from django.conf import settings

from outbox.process import heartbeat

__all__ = ["forget_heartbeats"]


def forget_heartbeats() -> None:
    """Redis knows of no process, as if none had ever run here."""
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        said = server.scan_iter(f"{heartbeat._PREFIX}*", count=1000)
        server.delete(heartbeat._KINDS, heartbeat._INDEX, *said)
