"""One client that writes what no HTTP client would, and a server of its own around an application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from eventsite.web.gateway.asgi_types import Application, Receive, Scope, Send
from eventsite.web.server import HttpProtocol
from eventsite.web.socket_protocol import SocketProtocol

__all__ = [
    "LENGTH",
    "POST",
    "REQUEST",
    "answer_of",
    "application",
    "assert_refused",
    "ended",
    "talk",
]

LENGTH = (b"content-length", b"2")
REQUEST = b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
Scenario = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers "ok" and what it was told: the body, and the names of the headers."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await asyncio.sleep(0.05)
    told = b"ok" + body + b"".join(name for name, _ in scope["headers"] if name[:2] == b"x-")
    headers = [(b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def talk(
    scenario: Scenario,
    application: Application = application,
    *,
    keep_alive: int = 60,
    ws: Any = SocketProtocol,
    bounds: Mapping[str, float] | None = None,
    **options: Any,
) -> None:
    """With one client of a server of its own; `bounds`: of HttpProtocol, as `head_seconds`;
    `options`: uvicorn's, as `ws_ping_interval`."""

    async def whole() -> None:
        config = Config(
            cast(Any, application),
            log_config=None,
            timeout_keep_alive=keep_alive,
            ws=ws,
            ws_per_message_deflate=False,
            **options,
        )
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: HttpProtocol(config, state, {}, **bounds or {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            await asyncio.wait_for(scenario(reader, writer), 20)
        finally:
            writer.close()
            server.close()
            for connection in [*state.connections]:
                connection.transport.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server hangs up without another word."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    [length] = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    return await reader.readexactly(int(length.partition(b" ")[2]))


async def assert_refused(reader: asyncio.StreamReader, status: int) -> None:
    """The last answer of the connection, in the shape of all errors."""
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    assert json.loads(body).keys() == {"error", "details"}
