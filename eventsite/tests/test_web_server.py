"""The server around the application: clients that never finish, and what is no request."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from eventsite import web_server
from eventsite.corked import Corked
from eventsite.gateway.asgi_types import Application, Receive, Scope, Send
from eventsite.web_server import HEAD_BYTES, HttpProtocol

LENGTH = (b"content-length", b"2")
REQUEST = b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n"
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


def talk(scenario: Scenario, application: Application = application) -> None:
    """With one client of a server of its own."""

    async def whole() -> None:
        config = Config(cast(Any, application), log_config=None, timeout_keep_alive=60)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
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


@pytest.mark.parametrize(
    "begun", [b"", b"GET /he", b"GET /here HTTP/1.1\r\nHost: x\r\n", REQUEST + b"G"]
)
def test_who_does_not_finish_the_head_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 0.3)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        if begun.startswith(REQUEST):
            assert await answer_of(reader) == b"ok"
        assert await ended(reader)

    talk(scenario)


def test_a_trickle_does_not_put_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 0.5)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\n")
        while not ended.done():
            writer.write(b"X-More: x\r\n")
            await asyncio.sleep(0.05)
        assert isinstance(ended.exception(), ConnectionResetError) or ended.result() == b""

    talk(scenario)


def test_who_finished_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection is not an unfinished head, and a body may take longer."""
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 0.2)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            await asyncio.sleep(0.5)
            writer.write(b"{}")
            assert await answer_of(reader) == b"ok{}"
            await asyncio.sleep(0.5)

    talk(scenario)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"x" * (HEAD_BYTES + 1), 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (HEAD_BYTES + 1), 431),
        (b"nonsense\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_refused_is_told_in_the_shape_of_all_errors(sent: bytes, status: int) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"content-type: application/json" in head
        assert json.loads(body).keys() == {"error", "details"}

    talk(scenario)


def test_a_head_of_allowed_size_comes_in_pieces() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for number in range(30):
            writer.write(b"Y-%d: %s\r\n" % (number, b"x" * 2000))
            await writer.drain()
        writer.write(b"\r\n")
        assert await answer_of(reader) == b"ok"

    talk(scenario)


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.2])
@pytest.mark.parametrize(
    "offer",
    [
        UPGRADE,
        b"upgrade: TLS/1.0\r\n" + UPGRADE,
        b"Upgrade: \r\n",
        b"Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n",
    ],
)
def test_an_offer_to_upgrade_is_passed_over(pause: float, offer: bytes) -> None:
    """Java's client makes one with its first request. What follows is the body, and no request."""
    body = b"GET /there HTTP/1.1\r\nHost: y\r\n\r\n"

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(
                b"\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\n"
                + offer
                + b"Content-Length: %d\r\n\r\n" % len(body)
            )
            await asyncio.sleep(pause)
            writer.write(body)
            assert await answer_of(reader) == b"ok" + body

    talk(scenario)


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 400),
        (b"GET http://h HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 2 * HEAD_BYTES, 431),
        (HANDSHAKE, 500),  # this application knows no WebSockets
    ],
)
@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize("size", [0, 100_000])
def test_nothing_overtakes_an_answer(behind: bytes, status: int, pause: float, size: int) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"x" * size
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + body)
        await asyncio.sleep(pause)
        writer.write(behind)
        assert await answer_of(reader) == b"ok" + body
        with suppress(ConnectionResetError):
            told = await reader.read()
            assert told.startswith(b"HTTP/1.1 %d " % status), told

    talk(scenario)


def test_requests_in_one_go_are_answered_one_after_the_other() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies = [b"", b"{}", b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", b"x" * 100_000, b""] * 4
        requests = b"".join(
            b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"
            % (UPGRADE, len(body), body)
            for body in bodies
        )
        for begin in range(0, len(requests), 7919):
            writer.write(requests[begin : begin + 7919])
            await asyncio.sleep(0)
        for body in bodies:
            assert await answer_of(reader) == b"ok" + body

    talk(scenario)


def test_what_follows_a_chunked_body_before_its_answer_ends_the_connection_with_it() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        writer.write(REQUEST)
        assert (await reader.read()).count(b"HTTP/1.1 200 ") <= 2

    talk(scenario)


@pytest.mark.parametrize("cut", range(1, len(HANDSHAKE), 5))
def test_a_handshake_in_pieces_is_one(cut: int) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HANDSHAKE[:cut])
        await asyncio.sleep(0.02)
        writer.write(HANDSHAKE[cut:])
        assert b" 500 " in await reader.readline()  # of the other protocol

    talk(scenario)


def test_trailers_are_no_headers() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nX-Api-Key: secret\r\n\r\n"
        )
        assert await answer_of(reader) == b"ok{}x-one"
        writer.write(REQUEST)
        assert await answer_of(reader) == b"ok"

    talk(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
)
@pytest.mark.parametrize("first", [b"", REQUEST])
def test_nothing_is_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, first: bytes
) -> None:
    monkeypatch.setattr(web_server, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 0.3)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first:
            writer.write(first)
            assert await answer_of(reader) == b"ok"
        writer.write(sent)
        assert await ended(reader)

    talk(scenario)


def test_a_trailer_without_end_is_not_collected() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.ensure_future(reader.read())
        writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        with suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(1000):
                writer.write(b"y" * 10_000)
                await writer.drain()
        [told] = await asyncio.gather(ended, return_exceptions=True)
        assert told == b"" or isinstance(told, ConnectionResetError)

    talk(scenario)


@pytest.mark.parametrize("line", [b"CONNECT a:1", b"GET http://h", b"GET http://h?a"])
def test_a_target_that_is_none_is_answered(line: bytes) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    talk(scenario)


def test_who_ends_his_side_while_he_is_answered_has_the_answer() -> None:
    """His end is seen between the turn that answers and the next."""
    ends: list[socket.socket] = []

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        with ends.pop() as end:
            end.shutdown(socket.SHUT_WR)
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())))
        writer.write(REQUEST)
        assert await answer_of(reader) == b"ok"
        assert await ended(reader)

    talk(scenario, answers)


@pytest.mark.parametrize(
    "begun", [b"", REQUEST[:20], b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_who_ends_his_side_within_a_request_is_hung_up_on(begun: bytes) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        assert await answer_of(reader) == b"ok"
        writer.write(begun)
        writer.write_eof()
        assert await ended(reader)

    talk(scenario)


def test_head_and_body_of_an_answer_go_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []

    class Recording(Corked):
        def flush(self) -> None:
            pieces.append(b"".join(self._written))
            super().flush()

    monkeypatch.setattr(web_server, "Corked", Recording)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        assert await answer_of(reader) == b"ok"
        [piece] = pieces
        assert piece.startswith(b"HTTP/1.1 200 ")
        assert piece.endswith(b"ok")

    talk(scenario)


def test_gauges_of_processes_that_are_gone_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kinds = ("gauge_livesum", "gauge_livemax", "gauge_mostrecent", "counter")
    for kind in kinds:
        for pid in (gone.pid, os.getpid()):
            (tmp_path / f"{kind}_{pid}.db").touch()
    with monkeypatch.context() as patched:
        patched.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        asyncio.run(web_server.forget_the_dead())
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {f"{kind}_{os.getpid()}.db" for kind in kinds} | {
        f"{kind}_{gone.pid}.db" for kind in kinds[2:]
    }
