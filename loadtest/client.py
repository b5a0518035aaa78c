"""HTTP/1.1 for a load generator: httptools parses, the rest is one request at a time on each of a pool
of kept connections. aiohttp alone would fill most of a core (docs/load-testing.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import uvloop
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

__all__ = ["Client", "ClientReply", "Failed", "run_with"]

FORBIDDEN = ("\r", "\n", "\0")
Result = TypeVar("Result")


class ClientReply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes


class Failed(Exception):
    """No whole answer came. `kind` is one of a few words:

    refused      nobody listens
    unreachable  any other reason why there is no connection: name, route, certificate
    timeout      no connection, or no whole answer, in time
    reset        the connection broke before the answer was whole
    hung_up      the server closed it before the answer was whole, or gave no length
    malformed    what came is no HTTP
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Client:
    """Requests to one server, each on a connection of its own while it lasts.

    `timeout`: seconds for a connection, and again for an answer. `headers` go with every request.
    Nothing is tried again. Belongs to one event loop. Raises ValueError for a URL that is none.
    """

    def __init__(
        self, base_url: str, *, timeout: float = 30.0, headers: Mapping[str, str] | None = None
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(
                f"{base_url!r} is not an address; give one like http://127.0.0.1:8080."
            )
        self._host = url.hostname
        self._tls = url.scheme == "https"
        self._port = url.port or (443 if self._tls else 80)
        self._prefix = url.path.rstrip("/").encode()
        self._headers = _encoded({"Host": url.netloc.rpartition("@")[2]} | dict(headers or {}))
        self._timeout = timeout
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def request(
        self, method: bytes, path: bytes, body: bytes | None = None, headers: bytes = b""
    ) -> ClientReply:
        """One request. `headers`: whole lines, each with its CRLF. Raises Failed."""
        connection = self._idle_connection() or await self._connect()
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        typed = b"Content-Type: application/json\r\n" if body else b""
        head = b"%b %b%b HTTP/1.1\r\n" % (method, self._prefix, path)
        request = b"".join((head, self._headers, headers, typed, length, b"\r\n", body or b""))
        try:
            reply = await connection.exchange(request, self._timeout)
        except asyncio.CancelledError:
            connection.close()  # its answer would be taken for the next one's
            raise
        if connection.usable:
            self._idle.append(connection)
        return reply

    def close(self) -> None:
        """Close every connection; requests under way fail."""
        for connection in list(self._all):
            connection.close()

    def _idle_connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._all), self._host, self._port, ssl=self._tls or None
                )
        except ConnectionRefusedError:
            raise Failed("refused") from None
        except ConnectionResetError:
            raise Failed("reset") from None
        except TimeoutError:
            raise Failed("timeout") from None
        except OSError as error:
            raise Failed("unreachable") from error
        return connection


def run_with(client: Client, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns, in an event loop of its own; the client is closed behind it."""

    async def run() -> Result:
        try:
            return await work
        finally:
            client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


class _Connection(asyncio.Protocol):
    """One kept connection with at most one request on it. httptools calls the `on_` methods."""

    def __init__(self, register: set[_Connection]) -> None:
        self._register = register
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._waiting: asyncio.Future[ClientReply] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._body: list[bytes] = []

    @property
    def usable(self) -> bool:
        return self._transport is not None and self._waiting is None

    def exchange(self, request: bytes, timeout: float) -> asyncio.Future[ClientReply]:
        if self._transport is None:  # it broke as soon as it was made
            raise Failed("reset")
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        self._timer = loop.call_later(timeout, self._fail, "timeout")
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        self._fail("hung_up")

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._register.add(self)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # an answer to nothing
            self._fail("malformed")
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail("malformed")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._register.discard(self)
        self._fail("hung_up" if error is None else "reset")

    # httptools

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and its like come before the answer
            return
        reply = ClientReply(status, b"".join(self._body))
        self._body.clear()
        waiting = self._release()
        if not self._parser.should_keep_alive():
            self._drop()
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _fail(self, kind: str) -> None:
        waiting = self._release()
        self._drop()
        if waiting is not None and not waiting.done():
            waiting.set_exception(Failed(kind))

    def _release(self) -> asyncio.Future[ClientReply] | None:
        waiting, self._waiting = self._waiting, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waiting

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


def _encoded(headers: Mapping[str, str]) -> bytes:
    for name, value in headers.items():
        if any(each in name + value for each in FORBIDDEN) or ":" in name:
            raise ValueError(f"{name!r} is no header.")
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items())
