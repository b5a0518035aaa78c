"""What every client of this project says to librdkafka."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from django.conf import settings

__all__ = ["client_config", "idempotent_config"]

_log = logging.getLogger("outbox.kafka")


class _NotAgain(logging.Filter):
    """librdkafka reports every attempt of every client: each message passes once in half a minute."""

    QUIET_SECONDS = 30.0
    # Numbers of clients that replace each other, and counters like "after 12ms in state CONNECT, 3 …".
    VARYING = re.compile(r"#(producer|consumer)-\d+|\(after .*")

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        message = self.VARYING.sub("", record.getMessage())
        if now - self._passed.get(message, -self.QUIET_SECONDS) < self.QUIET_SECONDS:
            return False
        recent = [item for item in self._passed.items() if now - item[1] < self.QUIET_SECONDS]
        self._passed = {**dict(recent), message: now}
        return True


_log.addFilter(_NotAgain())


def client_config(role: str) -> dict[str, Any]:
    """Settings shared by producers, consumers and the admin client; `role` names the client."""
    return {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        **settings.KAFKA_SECURITY,
        "client.id": f"{settings.SERVICE_NAME}-{role}",
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2000,
        # rebootstrap forgets this backoff when the last broker is gone and tries twenty times a
        # second; but without it librdkafka 2.16 crashes when a broker comes back with other topic
        # ids, and was seen to lose a group's coordinator for good after a minute's freeze.
        "metadata.recovery.strategy": "rebootstrap",
        "socket.keepalive.enable": True,
        # A producer would otherwise have the broker make a topic with a partition count of its own.
        "allow.auto.create.topics": False,
        "log.connection.close": False,
        "logger": _log,
    }


def idempotent_config(role: str) -> dict[str, Any]:
    """Settings of every producer that keeps the order of its messages: what failed leaves no gap
    that later ones jump over; such an error ends the producer instead."""
    return client_config(role) | {
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "acks": "all",
    }
