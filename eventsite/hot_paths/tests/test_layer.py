"""What the layer answers although Django never does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from eventsite.asgi import HOT_PATHS
from eventsite.gateway.asgi_types import Message, Receive, Scope, Send
from eventsite.hot_paths.layer import HotPaths
from eventsite.hot_paths.session import Session
from outbox.round_trips import Row, Statement
from restapi.hot_path import AnyHotPath, HotRead


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def get(
    path: str, query: bytes = b"", *, paths: Sequence[AnyHotPath] = HOT_PATHS
) -> list[Message]:
    """What is sent in answer, within a second."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    layer = HotPaths(hangs, paths, headers=[])
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


def test_a_read_whose_answers_are_lost_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_rows(self: Session, statement: Statement) -> list[Row]:
        return []

    monkeypatch.setattr(Session, "rows", no_rows)
    forgetful = HotRead(
        path="/orders",
        route="orders",
        statement=lambda _: ("SELECT 1", ()),
        answers=lambda *_: [],
    )
    start, body = asyncio.run(get("/orders", paths=[forgetful]))
    assert start["status"] == 503
    assert b'"outcome":"unknown"' in body["body"]
