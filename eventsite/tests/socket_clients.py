"""Sockets of the consumers of devtools.testing.sockets, and what the process says of them."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apikeys import services
from devtools.testing.patience import PATIENCE
from devtools.testing.web import Web

__all__ = ["NEVER", "SETTINGS", "bearer", "code_of", "lines", "make", "metric", "opened", "refused"]

SETTINGS = "devtools.testing.sockets.settings"
NEVER = "ek_00000000_" + "0" * 64


def make(name: str = "shop", *scopes: str) -> services.NewKey:
    return services.create_key(
        name=name,
        scopes=scopes or ("orders:read",),
        expires_at=None,
        by="test",
        at=datetime.now(UTC),
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def opened(web: Web, path: str, key: str = "", **options: Any) -> ClientConnection:
    headers = options.pop("headers", bearer(key) if key else {})
    url = f"ws://127.0.0.1:{web.port}{path}"
    options |= {"proxy": None, "max_size": None, "open_timeout": PATIENCE}
    client: ClientConnection = connect(url, additional_headers=headers, **options)
    return client


def refused(web: Web, path: str, status: int, key: str = "", **options: Any) -> dict[str, Any]:
    """The JSON of a handshake that was refused with this status and the headers of every answer."""
    with pytest.raises(InvalidStatus) as caught, opened(web, path, key, **options):
        pass
    answer = caught.value.response
    assert answer.status_code == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["traceparent"].startswith("00-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert bool(answer.headers.get("retry-after")) == (status in (429, 503))
    body: dict[str, Any] = json.loads(answer.body or b"")
    assert body.keys() == {"error", "details"}
    return body


def code_of(client: ClientConnection) -> int:
    """The code with which it is closed; 1006 if it broke without one."""
    with suppress(ConnectionClosed):
        while True:
            client.recv(timeout=PATIENCE)
    return client.close_code or 0


def lines(web: Web, event: str, **wanted: Any) -> list[dict[str, Any]]:
    """Lines of the process's log."""
    found = [
        json.loads(line) for line in web.process.log.read_text().splitlines() if line[:1] == "{"
    ]
    return [
        line
        for line in found
        if line["event"] == event and all(line.get(key) == wanted[key] for key in wanted)
    ]


def metric(web: Web, name: str, **labels: str) -> float:
    given = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    start = f"{name}{{{given}}} "
    found = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(start)) for line in found if line.startswith(start))
