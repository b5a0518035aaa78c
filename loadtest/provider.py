"""A provider to load against (`--provider PORT`): answers every POST at once, and remembers what came
and when, in a process of its own, so that it takes no time from the generator."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

import uvicorn
import uvloop

from outbox.envelope import parse_id

__all__ = ["Arrivals", "ProviderLost", "provider"]

STARTS_WITHIN = 10.0  # seconds
BACKLOG = 1024
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
    os.setsid()  # Ctrl+C is for the generator, which ends this
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    except OSError as error:
        end.send(str(error.strerror or error))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listener, fails, seed, end))


async def _serve(listener: socket.socket, fails: float, seed: int, end: Connection) -> None:
    arrivals = Arrivals()
    application = _application(arrivals, fails, random.Random(f"provider {seed}"))  # noqa: S311
    # Senders keep a connection that is idle for 30 s; one that is closed meanwhile costs an attempt.
    config = uvicorn.Config(
        application, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)

    def asked() -> None:
        try:
            end.recv()
            end.send(arrivals)
        except (EOFError, OSError):
            server.should_exit = True

    asyncio.get_running_loop().add_reader(end.fileno(), asked)
    end.send("ready")
    await server.serve([listener])


def _application(arrivals: Arrivals, fails: float, chooser: random.Random) -> Any:
    async def provide(scope: Any, receive: Any, send: Any) -> None:
        # After a retry by an operator it is <id>.<n>.
        id_ = parse_id(dict(scope["headers"]).get(KEY, b"").decode("latin-1").partition(".")[0])
        status, body = 400, b"{}"
        if id_ is not None:
            arrivals.at.setdefault(id_, []).append(time.time())
            status, body = 202, b'{"messageId":"%b","status":"accepted"}' % str(id_).encode()
            if fails and chooser.random() < fails:
                arrivals.refused[id_] += 1
                status, body = 503, b"{}"
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return provide
