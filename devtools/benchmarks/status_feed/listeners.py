"""Many open sockets of a live feed in one process, as cheap as they can be, and how long a change
takes to reach them."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from devtools.benchmarks import report

__all__ = ["Delays", "Listeners", "figures_of", "measure", "open_many_files"]

OPENED_AT_ONCE = 50
_TEXT = 0x81
_PING = 0x89


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds from a change: to each socket, and to the last one."""

    each: Sequence[float]
    last: Sequence[float]


def open_many_files() -> None:
    """As many as may be, here and in the processes that are started: each socket is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Listener(asyncio.Protocol):
    """One socket. Notes when each text message has come; the first one is the hub's `open`."""

    def __init__(self, port: int, path: str) -> None:
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        self._data = b""
        self._head = True
        self.came: list[float] = []
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._data += data
        if self._head:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(head[:40].decode()))
                return
            self._head, self._data = False, rest
        while len(self._data) >= 2:
            length, begin = self._data[1], 2
            if length == 126:
                length, begin = int.from_bytes(self._data[2:4], "big"), 4
            if len(self._data) < begin + length:
                return
            self._take(self._data[0], self._data[begin : begin + length], now)
            self._data = self._data[begin + length :]

    def _take(self, kind: int, payload: bytes, now: float) -> None:
        if kind == _PING:
            mask = bytes(4)  # of zeros, which changes nothing
            self.transport.write(bytes((0x8A, 0x80 | len(payload))) + mask + payload)
        elif kind == _TEXT and not self.opened.done():
            self.opened.set_result(None)
        elif kind == _TEXT:
            self.came.append(now)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("It was closed."))


class Listeners:
    """Open sockets; `paths`: one for each."""

    def __init__(self, port: int, paths: Sequence[str]) -> None:
        self._port = port
        self._paths = paths
        self._each: list[_Listener] = []

    async def open(self) -> None:
        """Until every one of them has heard the first message."""
        for begin in range(0, len(self._paths), OPENED_AT_ONCE):
            await asyncio.gather(*map(self._open, self._paths[begin : begin + OPENED_AT_ONCE]))

    async def _open(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        _, listener = await loop.create_connection(
            lambda: _Listener(self._port, path), "127.0.0.1", self._port
        )
        self._each.append(listener)
        await listener.opened

    async def heard(self, count: int, within: float) -> None:
        """Until each has that many messages. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while any(len(each.came) < count for each in self._each):
                await asyncio.sleep(0.02)

    def delays(self, moments: Sequence[float]) -> Delays:
        """Of the changes of these moments (time.perf_counter), in this order."""
        each: list[float] = []
        last: list[float] = []
        for number, at in enumerate(moments):
            came = [(listener.came[number] - at) * 1000 for listener in self._each]
            each += came
            last.append(max(came))
        return Delays(each, last)

    def close(self) -> None:
        for each in self._each:
            each.transport.abort()


async def measure(
    port: int,
    paths: Sequence[str],
    change: Callable[[int], Awaitable[float]],
    *,
    per_second: float,
    seconds: float,
) -> Delays:
    """Open a socket for each path, then make a change by the clock, `per_second` times; each gives
    every socket one message. `change` returns the moment from which its delay counts."""
    listeners = Listeners(port, paths)
    try:
        await listeners.open()
        moments: list[float] = []
        begin = time.perf_counter()
        for number in range(round(per_second * seconds)):
            await asyncio.sleep(max(0.0, begin + number / per_second - time.perf_counter()))
            moments.append(await change(number))
        await listeners.heard(len(moments), within=30)
        return listeners.delays(moments)
    finally:
        listeners.close()


def figures_of(name: str, delays: Delays, note: str = "") -> list[report.BenchFigure]:
    """p50 and p99 over all sockets and changes, and p99 to the last socket of each change."""
    return [
        report.BenchFigure(
            name=f"{name}: p50", value=_quantile(delays.each, 50), unit="ms", note=note
        ),
        report.BenchFigure(
            name=f"{name}: p99", value=_quantile(delays.each, 99), unit="ms", at_most=250
        ),
        report.BenchFigure(
            name=f"{name}: p99 to the last socket",
            value=_quantile(delays.last, 99),
            unit="ms",
            at_most=300,
        ),
    ]


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
