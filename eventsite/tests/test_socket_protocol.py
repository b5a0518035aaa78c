"""What the server itself does to a WebSocket: pings, and ends that wait for nobody."""

from __future__ import annotations

import asyncio
import struct
from functools import partial
from typing import Any, cast

import pytest
from websockets.frames import Frame, Opcode

from eventsite.tests.one_client import ended, talk
from eventsite.tests.test_web_requests import HANDSHAKE
from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.socket_protocol import SocketProtocol, text_frame
from restapi.sockets import PUSH, CloseCode

MANY = 1_000_000  # frames: more than all buffers between server and client take
QUICK = partial(SocketProtocol, close_seconds=0.2)
SOON: dict[str, Any] = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}


def masked(opcode: Opcode, data: bytes = b"") -> bytes:
    return Frame(opcode, data).serialize(mask=True)


async def handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HANDSHAKE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode and content of a short frame of the server's."""
    first, length = await reader.readexactly(2)
    return first & 15, await reader.readexactly(length)


async def echoes(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "heard"})


def test_who_answers_pings_stays() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        for _ in range(5):
            opcode, payload = await next_frame(reader)
            assert opcode == Opcode.PING
            writer.write(masked(Opcode.PONG, payload))
        writer.write(masked(Opcode.TEXT, b"x"))
        assert await next_frame(reader) == (Opcode.TEXT, b"heard")

    talk(scenario, echoes, **SOON)


def test_who_does_not_is_cut_off() -> None:
    """And does not keep us waiting for an answer to the close."""
    heard: list[int] = []

    async def hears(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        heard.append((await receive())["code"])

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        assert (await next_frame(reader))[0] == Opcode.PING
        opcode, payload = await next_frame(reader)
        assert opcode == Opcode.CLOSE
        assert struct.unpack("!H", payload[:2])[0] == CloseCode.TOO_SLOW
        assert await ended(reader)

    talk(scenario, hears, ws=QUICK, **SOON)
    assert heard == [CloseCode.TOO_SLOW]


def test_a_ping_that_we_leave_unread_is_no_fault_of_the_client() -> None:
    """A consumer that takes its time over a message stops the reading, so pongs are not seen."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await asyncio.sleep(1.5)
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "late"})

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        writer.write(masked(Opcode.TEXT, b"x") + masked(Opcode.TEXT, b"y"))
        while True:
            opcode, payload = await next_frame(reader)
            if opcode != Opcode.PING:
                break
            writer.write(masked(Opcode.PONG, payload))
        assert (opcode, payload) == (Opcode.TEXT, b"late")

    talk(scenario, slow, **SOON)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_close_does_not_wait_for_a_client_that_does_not_read(who: str) -> None:
    """Whose buffers are full: the transport's own close would wait as long as they are."""
    sends_fail = asyncio.Event()

    async def floods(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        flood = asyncio.create_task(flooding(send))
        await asyncio.sleep(0.5)
        assert not flood.done()  # it waits
        if who == "server":
            await asyncio.wait_for(send({"type": "websocket.close", "code": 1013}), 1)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await asyncio.wait_for(flood, 5)
        sends_fail.set()

    async def flooding(send: Send) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 1_000_000})
        except OSError:
            pass

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        cast(asyncio.Transport, writer.transport).pause_reading()
        if who == "client":
            await asyncio.sleep(1)
            writer.write(masked(Opcode.CLOSE, b"\x03\xe8"))
        await asyncio.wait_for(sends_fail.wait(), 10)

    talk(scenario, floods, ws=QUICK)


def test_a_push_is_refused_where_a_send_would_wait() -> None:
    """And goes on behind what was sent: nothing is lost, nothing overtakes."""
    pushed: list[int] = []

    async def pushes(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        push, frame = scope["extensions"][PUSH], text_frame(b"x" * 100)
        # Nothing is read meanwhile: this is the loop of the client, too.
        pushed.append(next(count for count in range(MANY) if not push(frame)))
        await send({"type": "websocket.send", "text": "end"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        heard = 0
        while (frame := await next_frame(reader)) == (Opcode.TEXT, b"x" * 100):
            heard += 1
        assert frame == (Opcode.TEXT, b"end")
        assert pushed == [heard]

    talk(scenario, pushes)


@pytest.mark.parametrize("who", ["server", "client", "nobody"])
def test_a_push_is_refused_once_the_socket_is_closed(who: str) -> None:
    """By whom it may be, and where the connection broke."""
    refused = asyncio.Event()

    async def pushes(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        push, frame = scope["extensions"][PUSH], text_frame(b"x")
        assert push(frame)
        if who == "server":
            await send({"type": "websocket.close"})
        else:
            await receive()
        assert not push(frame)
        refused.set()

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        assert await next_frame(reader) == (Opcode.TEXT, b"x")
        if who == "client":
            writer.write(masked(Opcode.CLOSE, b"\x03\xe8"))
        elif who == "nobody":
            cast(asyncio.Transport, writer.transport).abort()
        await asyncio.wait_for(refused.wait(), 10)
        if who != "nobody":
            assert (await next_frame(reader))[0] == Opcode.CLOSE

    talk(scenario, pushes)
