"""Asking a broker that does not answer."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from outbox.kafka import admin


def test_a_silent_broker_is_unavailable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge waits for such a one; any other error would end it."""
    monkeypatch.setattr(admin, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.KAFKA_BOOTSTRAP_SERVERS = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(admin.KafkaUnavailable, match="no answer within"):
            admin.topic_ids(["order-events"])
