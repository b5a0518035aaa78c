"""What the server takes for one request: lengths, methods, offers to upgrade, and what follows."""

from __future__ import annotations

import asyncio

import pytest

from eventsite.tests.one_client import (
    LENGTH,
    POST,
    REQUEST,
    answer_of,
    application,
    assert_refused,
    ended,
    talk,
)
from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.server import HEAD_BYTES

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize(
    ("length", "body"),
    [(b"00000000000000000000027", b"x" * 27), (b"2 \t", b"{}"), (b"0" * 5000 + b"2", b"{}")],
)
def test_a_length_is_what_the_parser_reads(length: bytes, body: bytes, pause: float) -> None:
    """Zeros before it and whitespace behind it are allowed (RFC 9110, 8.6 and 5.5)."""

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(POST + b"Content-Length: " + length + b"\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(body)
            assert await answer_of(reader) == b"ok" + body

    talk(scenario)


def test_a_body_that_would_never_end_is_the_applications_to_refuse() -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        assert lengths == [b"1000000000000000000"]
        headers = [LENGTH, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST + b"Content-Length: 1000000000000000000\r\n\r\n{")
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")

    talk(scenario, refuses)


async def names_its_request(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the method and with what stands in the header X."""
    body = (await receive())["body"]
    values = [value for name, value in scope["headers"] if name == b"x"]
    told = b"|".join([scope["method"].encode(), *values, body])
    headers = [(b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def test_whitespace_around_a_value_is_no_part_of_it() -> None:
    """RFC 9110, 5.5. What stands within it is."""

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for written in (b"a \t b", b" \ta \t b", b"a \t b \t ", b"\ta \t b\t"):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX:" + written + b"\r\n\r\n")
            assert await answer_of(reader) == b"GET|a \t b|"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: \t \r\n\r\n")
        assert await answer_of(reader) == b"GET||"

    talk(scenario, names_its_request)


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"])
@pytest.mark.parametrize("method", [b"FOO", b"G", b"GETT", b"!~", b"M" * 64])
def test_a_method_that_the_parser_does_not_know_reaches_the_application(
    method: bytes, offer: bytes
) -> None:
    """Which says 405; the body is a body, also with a WebSocket offered."""

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for before in (b"", b"\r\n"):
            writer.write(before + method + b" / HTTP/1.1\r\nHost: x\r\n" + offer)
            writer.write(b"Content-Length: 2\r\n\r\n{}")
            assert await answer_of(reader) == method + b"|{}"
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
            assert await answer_of(reader) == b"POST|{}"

    talk(scenario, names_its_request)


@pytest.mark.parametrize("method", [b"FOO", b"GETT", b"POSTAL", b"!~", b"POST"])
def test_a_method_may_come_in_pieces(method: bytes) -> None:
    """The parser alone refuses one as soon as no method it knows begins so."""

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for before in (b"", b"\r\n"):
            for byte in before + method:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            writer.write(b" / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            assert await answer_of(reader) == method + b"|{}"

    talk(scenario, names_its_request)


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


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "behind",
    [
        REQUEST,
        REQUEST * 1000,
        POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"FOO / HTTP/1.1\r\n",
        b"G",
        b"GET /" + b"x" * 2 * HEAD_BYTES,
        b"\r\n" * 2 * HEAD_BYTES,
        HANDSHAKE,
    ],
)
@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize("size", [0, 100_000])
def test_a_request_before_the_answer_ends_the_connection_with_that_answer(
    behind: bytes, pause: float, size: int, chunked: bool
) -> None:
    """It is not served, and nothing overtakes the answer; clients send it again."""
    may_answer = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await application(scope, receive, send)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"x" * size
        if chunked:
            parts = b"%x\r\n%b\r\n" % (size, body) if size else b""
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n")
        else:
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % size + body)
        await asyncio.sleep(pause)
        writer.write(behind)
        await asyncio.sleep(0.05)
        may_answer.set()
        assert await answer_of(reader) == b"ok" + body
        assert await ended(reader)

    talk(scenario, waits)


def test_empty_lines_before_the_answer_are_no_request() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}\r\n")
            assert await answer_of(reader) == b"ok{}"

    talk(scenario)


@pytest.mark.parametrize("in_one", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_comes_after_its_answer_is_dropped(in_one: bool, chunked: bool) -> None:
    """And is never read as a request; the connection goes on behind it."""

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
            await send({"type": "http.response.body", "body": b"no"})
        else:
            await application(scope, receive, send)

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"GET /there HTTP/1.1\r\nHost: y\r\n\r\n"
        size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        writer.write(POST + size + b"\r\n\r\n")
        assert await answer_of(reader) == b"no"
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        for part in (sent + REQUEST,) if in_one else (sent[:9], sent[9:], REQUEST):
            writer.write(part)
            await asyncio.sleep(0.02)
        assert await answer_of(reader) == b"ok"
        writer.write(b"nonsense\r\n\r\n")
        await assert_refused(reader, 400)

    talk(scenario, refuses)


def test_a_connection_whose_body_came_after_its_answer_is_not_kept_for_ever() -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"no"})

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST + b"Content-Length: 2\r\n\r\n")
        assert await answer_of(reader) == b"no"
        writer.write(b"{}")
        assert await ended(reader)

    talk(scenario, refuses, keep_alive=1)


@pytest.mark.parametrize("cut", range(1, len(HANDSHAKE), 5))
def test_a_handshake_in_pieces_is_one(cut: int) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HANDSHAKE[:cut])
        await asyncio.sleep(0.02)
        writer.write(HANDSHAKE[cut:])
        assert b" 500 " in await reader.readline()  # of the other protocol

    talk(scenario)


def test_a_websocket_outlives_the_time_of_an_idle_connection() -> None:
    """Also where a request was answered on the connection before."""

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await application(scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        await asyncio.sleep(1.5)
        await send({"type": "websocket.send", "text": "late"})

    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        assert await answer_of(reader) == b"ok"
        writer.write(HANDSHAKE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(6) == b"\x81\x04late"

    talk(scenario, both, keep_alive=1)


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
