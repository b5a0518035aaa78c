"""What the layer answers although Django never does."""

from __future__ import annotations

import asyncio

import pytest

from eventsite.asgi import HOT_PATHS
from eventsite.gateway.asgi_types import Message, Receive, Scope, Send
from eventsite.hot_paths.layer import HotPaths


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def get(path: str, query: bytes = b"") -> list[Message]:
    """What is sent in answer, within a second."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    layer = HotPaths(hangs, HOT_PATHS, headers=[])
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    try:
        await asyncio.wait_for(layer(scope, receive, send), 1.0)
    finally:
        await layer.close()
    return sent


def test_health_is_told_while_django_hangs() -> None:
    start, body = asyncio.run(get("/health"))
    assert start["status"] == 200
    assert body["body"] == b'{"status":"alive"}'


def test_what_is_not_sure_waits_for_django() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(get("/health", b"strict=1"))
