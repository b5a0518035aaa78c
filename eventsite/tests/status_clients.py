"""Web processes with a status log, and sockets that follow it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from devtools.testing.patience import PATIENCE
from devtools.testing.processes import child_environment
from devtools.testing.web import Web, web_process

__all__ = ["SETTINGS", "Second", "database_url", "following", "heard", "metric", "opened"]

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "devtools.testing.ticks.settings",
    "WEBSOCKETS_PER_CALLER": "0",
    "WEBSOCKET_SEND_SECONDS": "600",  # so that it is the hub who cuts off
}


def database_url() -> str:
    return child_environment()["DATABASE_URL"]


class Second:
    """Another web process beside the first, which may be killed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.web = self._start()

    def _start(self) -> Web:
        return self._stack.enter_context(web_process(**SETTINGS))

    def kill(self) -> None:
        self.web.process.kill()

    def replace(self) -> None:
        self.web = self._start()

    def close(self) -> None:
        self._stack.close()


@contextmanager
def following(web: Web, query: str = "") -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{web.port}/ws/ticks{query}"
    # Without a bound of its queue: beyond one it would not read on to the answer of its close.
    with connect(url, proxy=None, open_timeout=PATIENCE, max_size=None, max_queue=None) as client:
        yield client


def heard(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=PATIENCE))
    return message


def opened(client: ClientConnection) -> int:
    message = heard(client)
    assert message["type"] == "open", message
    return int(message["seq"])


def metric(web: Web, name: str) -> float:
    start = f'{name}{{log="ticks"}} '
    lines = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))
