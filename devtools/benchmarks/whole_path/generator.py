"""Simple orders at a fixed rate, from a process of its own, for as little processor time as Python allows:
`python -m devtools.benchmarks.whole_path.generator URL RATE SECONDS` prints what came back as JSON.

`loadtest/client.py` sends anything to anybody and takes 100 µs a request; beside a server that takes as
much that is a load of its own. Here every request is made beforehand, there are no tasks and no timers, and
one loop over epoll writes what is due and reads what has come. Latency counts from the moment a request was
due, so a server that stands still makes all wait that came meanwhile.
"""

from __future__ import annotations

import gc
import json
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loadtest.payloads import Payloads

__all__ = ["Load", "send"]

BODIES = 1000
TIMEOUT = 30.0  # seconds without any answer
CONNECTIONS = 500  # what is due beyond as many unanswered requests waits, and its latency counts
LATE = 5.0  # seconds behind the end in which what is due may still be sent
_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(slots=True)
class Load:
    """What came back: `latencies` in seconds from the intended start, of what was accepted; the others, and
    what could not be sent in time, count as `failed`. `cpu`: seconds of processor of the sending itself."""

    seconds: float = 0.0
    failed: int = 0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        ranked = sorted(self.latencies) or [float("nan")]
        return {
            "answered": len(self.latencies),
            "failed": self.failed,
            "seconds": self.seconds,
            "p50_ms": 1000 * ranked[len(ranked) // 2],
            "p99_ms": 1000 * ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))],
            "cpu_us": 1e6 * self.cpu / max(1, len(self.latencies) + self.failed),
        }


class _Connection:
    """One kept connection with at most one request on it."""

    __slots__ = ("due", "held", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.held = b""


def send(url: str, rate: float, seconds: float, *, seed: int = 1) -> Load:
    """`rate` orders a second for so long; returns with the last answer. SIGTERM ends it early. Raises
    TimeoutError if nothing is answered any more, ConnectionError if nobody listens or it is no HTTP."""
    return _Sender(url, seed).run(rate, round(rate * seconds))


class _Sender:
    def __init__(self, url: str, seed: int) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._address = (address.hostname, address.port)
        self._requests = _requests(address.netloc, address.path.encode(), seed)
        self._poller = select.epoll()
        self._busy: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._ended = False
        self.load = Load()
        signal.signal(signal.SIGTERM, self._end)

    def run(self, rate: float, orders: int) -> Load:
        gc.disable()  # whatever it would collect is needed until the end
        requests, bodies = self._requests, len(self._requests)
        cpu, begin = time.process_time(), time.perf_counter()
        answered, sent = begin, 0
        while True:
            now = time.perf_counter() - begin
            if self._ended or now > orders / rate + LATE:
                self.load.failed += 0 if self._ended else orders - sent
                orders = sent
            due = min(orders, int(now * rate) + 1)
            while sent < due and len(self._busy) < CONNECTIONS:
                self._write(requests[sent % bodies], begin + sent / rate)
                sent += 1
            if not self._busy and sent >= orders:
                break
            more = sent < orders and len(self._busy) < CONNECTIONS
            until = begin + sent / rate - time.perf_counter() if more else 1.0
            if self._read(max(0.0, until)):
                answered = time.perf_counter()
            elif self._busy and time.perf_counter() - answered > TIMEOUT:
                raise TimeoutError(f"{len(self._busy)} requests have no answer")
        self.load.seconds = time.perf_counter() - begin
        self.load.cpu = time.process_time() - cpu
        return self.load

    def _end(self, *_: object) -> None:
        self._ended = True

    def _write(self, request: bytes, due: float) -> None:
        connection = self._idle.pop() if self._idle else self._connect()
        connection.due = due
        self._busy[connection.socket.fileno()] = connection
        with suppress(ConnectionError):  # reported when its answer is read
            connection.socket.send(request)  # a few hundred bytes: they always fit

    def _connect(self) -> _Connection:
        connection = _Connection(self._address)
        self._poller.register(connection.socket.fileno(), select.EPOLLIN)
        return connection

    def _forget(self, number: int) -> None:
        """The server has closed a connection that nothing was asked on for a while."""
        [closed] = [each for each in self._idle if each.socket.fileno() == number]
        self._idle.remove(closed)
        closed.socket.close()

    def _read(self, timeout: float) -> bool:
        """Wait for answers; whether any came."""
        found = self._poller.poll(timeout)
        for number, _ in found:
            connection = self._busy.get(number)
            if connection is None:
                self._forget(number)
                continue
            data = _received(connection.socket)
            if not data:
                del self._busy[number]
                connection.socket.close()
                self.load.failed += 1
                continue
            if connection.held:
                data = connection.held + data
            if not _is_whole(data):
                connection.held = data
                continue
            connection.held = b""
            if data[9:10] == b"2":
                self.load.latencies.append(time.perf_counter() - connection.due)
            else:
                self.load.failed += 1
            del self._busy[number]
            self._idle.append(connection)
        return bool(found)


def _received(connection: socket.socket) -> bytes:
    """Nothing if the server has hung up."""
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def _is_whole(data: bytes) -> bool:
    end = data.find(_END)
    if end < 0:
        return False
    start = data.lower().find(_LENGTH, 0, end)
    if start < 0:
        raise ConnectionError(f"an answer without a length: {data[:80]!r}")
    start += len(_LENGTH)
    return len(data) >= end + len(_END) + int(data[start : data.index(b"\r", start)])


def _requests(host: str, prefix: bytes, seed: int) -> Sequence[bytes]:
    payloads = Payloads(seed=seed, kind="simple")
    bodies = [payloads.next().body for _ in range(BODIES)]
    return [
        b"POST %b/orders HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (prefix, host.encode(), len(body), body)
        for body in bodies
    ]


if __name__ == "__main__":
    _, _url, _rate, _seconds = sys.argv
    json.dump(send(_url, float(_rate), float(_seconds)).summary(), sys.stdout)
