"""A provider to load against (`--provider PORT`): answers every POST at once, and remembers what came
and when, in a process of its own, so that it takes no time from the generator."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from uuid import UUID

import httptools
import uvloop

__all__ = ["Arrivals", "ProviderLost", "provider"]

STARTS_WITHIN = 10.0  # seconds
KEY = b"idempotency-key"


class ProviderLost(Exception):
    """It could not listen, or has ended; the message says why."""


@dataclass(slots=True)
class Arrivals:
    """Id -> when it came, in seconds since the epoch, each time; and how often that was answered 503."""

    at: dict[UUID, list[float]] = field(default_factory=dict)
    refused: Counter[UUID] = field(default_factory=Counter)


@contextmanager
def provider(port: int, *, fails: float = 0.0, seed: int = 1) -> Iterator[Callable[[], Arrivals]]:
    """A provider on this port of 127.0.0.1; a share `fails` of what comes is answered 503. Yields a function: what
    has come until now. Both raise ProviderLost."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(port, fails, seed, theirs), daemon=True
    )

    def arrivals() -> Arrivals:
        try:
            ours.send("arrivals")
            found: Arrivals = ours.recv()
        except (EOFError, OSError) as error:
            raise ProviderLost("The provider's process has ended.") from error
        return found

    process.start()
    theirs.close()
    try:
        if not ours.poll(STARTS_WITHIN):
            raise ProviderLost("The provider's process did not start.")
        try:
            word = ours.recv()
        except EOFError:
            word = "it ended"
        if word != "ready":
            raise ProviderLost(f"The provider cannot listen on port {port}: {word}.")
        yield arrivals
    finally:
        process.terminate()
        process.join(STARTS_WITHIN)


def _run(port: int, fails: float, seed: int, end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the generator ends it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(port, fails, seed, end))


async def _serve(port: int, fails: float, seed: int, end: Connection) -> None:
    loop, arrivals = asyncio.get_running_loop(), Arrivals()
    chooser = random.Random(f"provider {seed}")  # noqa: S311  (a repeatable choice)
    closed = asyncio.Event()

    def asked() -> None:
        try:
            end.recv()
            end.send(arrivals)
        except (EOFError, OSError):
            closed.set()

    try:
        server = await loop.create_server(
            lambda: _Provider(arrivals, fails, chooser), "127.0.0.1", port
        )
    except OSError as error:
        end.send(str(error.strerror or error))
        return
    loop.add_reader(end.fileno(), asked)
    end.send("ready")
    async with server:
        await closed.wait()


class _Provider(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, arrivals: Arrivals, fails: float, chooser: random.Random) -> None:
        self._arrivals = arrivals
        self._fails = fails
        self._chooser = chooser
        self._parser = httptools.HttpRequestParser(self)
        self._id: UUID | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._id = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == KEY:
            # After a retry by an operator it is <id>.<n>.
            self._id = _uuid(value.partition(b".")[0])

    def on_message_complete(self) -> None:
        if self._id is None:
            self._answer(b"400 Bad Request", b"{}")
            return
        self._arrivals.at.setdefault(self._id, []).append(time.time())
        if self._fails and self._chooser.random() < self._fails:
            self._arrivals.refused[self._id] += 1
            self._answer(b"503 Service Unavailable", b"{}")
        else:
            body = b'{"messageId":"%b","status":"accepted"}' % str(self._id).encode()
            self._answer(b"202 Accepted", body)

    def _answer(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)
        if not self._parser.should_keep_alive():
            self._transport.close()


def _uuid(text: bytes) -> UUID | None:
    try:
        return UUID(text.decode())
    except ValueError:
        return None
