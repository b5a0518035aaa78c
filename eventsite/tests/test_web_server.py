"""The server around the application: clients that never finish, and what is no request."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from eventsite.tests.one_client import (
    LENGTH,
    POST,
    REQUEST,
    answer_of,
    assert_refused,
    ended,
    talk,
)
from eventsite.web import server
from eventsite.web.cork import Corked
from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.server import HEAD_BYTES


@pytest.mark.parametrize("first", [b"", REQUEST])
@pytest.mark.parametrize("begun", [b"GET /he", b"GET /here HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_is_not_complete_in_time_is_a_408(first: bytes, begun: bytes) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first:
            writer.write(first)
            assert await answer_of(reader) == b"ok"
        writer.write(begun)
        await assert_refused(reader, 408)

    talk(scenario, bounds={"head_seconds": 0.3})


def test_a_client_that_sends_nothing_is_hung_up_on() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await ended(reader)

    talk(scenario, bounds={"head_seconds": 0.3})


def test_a_trickle_does_not_extend_the_time() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\n")
        while not ended.done():
            writer.write(b"X-More: x\r\n")
            await asyncio.sleep(0.05)
        [told] = await asyncio.gather(ended, return_exceptions=True)
        assert not isinstance(told, bytes) or told.startswith(b"HTTP/1.1 408 ")

    talk(scenario, bounds={"head_seconds": 0.5})


def test_who_finished_may_be_silent() -> None:
    """An idle connection is not an unfinished head, and a body may take longer."""

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            await asyncio.sleep(0.5)
            writer.write(b"{}")
            assert await answer_of(reader) == b"ok{}"
            await asyncio.sleep(0.5)

    talk(scenario, bounds={"head_seconds": 0.2})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"x" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"post / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"M" * 65 + b" / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # of TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (POST + b"Content-Length: 100000000000000000000000\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 2 * HEAD_BYTES, 431),
    ],
)
def test_what_is_refused_is_told_in_the_shape_of_all_errors(sent: bytes, status: int) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await assert_refused(reader, status)

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


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n", 0),
        (b"\r\n\r\n", 0),
        (POST + b"Content-Length: 2\r\n\r\n{", 408),
        (POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", 408),
        (b"FOO / HTTP/1.1\r\n", 408),
        (b"FO", 408),
    ],
)
@pytest.mark.parametrize("first", [b"", REQUEST])
def test_nothing_is_waited_for_without_end(sent: bytes, status: int, first: bytes) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first:
            writer.write(first)
            assert await answer_of(reader) == b"ok"
        writer.write(sent)
        if status:
            await assert_refused(reader, status)
        else:
            assert await ended(reader)

    talk(scenario, bounds={"body_seconds": 0.3, "head_seconds": 0.3})


def test_a_trailer_without_end_is_not_collected() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.ensure_future(reader.read())
        writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        with suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(1000):
                writer.write(b"y" * 10_000)
                await writer.drain()
        [told] = await asyncio.gather(ended, return_exceptions=True)
        assert not isinstance(told, bytes) or told.startswith(b"HTTP/1.1 431 ")

    talk(scenario)


@pytest.mark.parametrize("line", [b"GET http://h", b"GET http://h?a"])
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

    monkeypatch.setattr(server, "Corked", Recording)

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
        asyncio.run(server.forget_the_dead())
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {f"{kind}_{os.getpid()}.db" for kind in kinds} | {
        f"{kind}_{gone.pid}.db" for kind in kinds[2:]
    }
