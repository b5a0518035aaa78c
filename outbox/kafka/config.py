"""What every client of this project says to librdkafka."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings

__all__ = ["client_config"]

_log = logging.getLogger("outbox.kafka")


class _StateChanges(logging.Filter):
    """librdkafka reports every reconnect attempt; here each distinct message passes once in a row."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        # The text ends with ever-changing counters ("after 12ms in state CONNECT, 3 identical…").
        message = record.getMessage().partition(" (after ")[0]
        changed = message != self._last
        self._last = message
        return changed


_log.addFilter(_StateChanges())


def client_config(role: str) -> dict[str, Any]:
    """Settings shared by producers, consumers and the admin client; `role` names the client."""
    return {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        "client.id": f"{settings.SERVICE_NAME}-{role}",
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        "log.connection.close": False,
        "logger": _log,
    }
