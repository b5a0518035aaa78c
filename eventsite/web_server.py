"""The web process: uvicorn with our application, and bounds for who never finishes a request.

docs/adr/0007-uvicorn.md says why uvicorn.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from eventsite.gateway.refusals import BodyIncomplete, Refused

__all__ = ["APPLICATION", "HttpProtocol", "leave", "serve", "watch_parent"]

APPLICATION = "eventsite.asgi:application"
HEAD_SECONDS = 10.0  # for request line and headers
HEAD_BYTES = 65_536
BODY_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 75  # longer than the pools of usual clients keep an idle connection
# For requests under way at the stop, and for threads behind it; between the two what was accepted is
# stored. What hangs on a server may not keep us from stopping within ten seconds.
STOP_SECONDS = 6
LEAVE_SECONDS = 1.0
# Connections that come while the loop is busy. Those it has are bounded by the limit of open files,
# what waits in them by the queues behind it.
BACKLOG = 16_384
_UPGRADE = re.compile(
    rb"\r\nupgrade[ \t]*:(?![ \t]*websocket[ \t]*\r\n)[^\r\n]*(?=\r\n)", re.IGNORECASE
)


class HttpProtocol(HttpToolsProtocol):
    """One client, with bounds for what uvicorn leaves open.

    The head of a request is collected here and handed on whole: at most HEAD_BYTES (else 431) in
    HEAD_SECONDS, its body in BODY_SECONDS; who takes longer is hung up on. An offer to upgrade to
    anything but WebSocket is taken out of it: the parser would take what follows for the new
    protocol, bodies included. Trailers are not headers and are dropped. Refusals have the shape of
    all other errors, and wait for the answer that is due before them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = b""  # what has come of one that is not whole
        self._in_message = self._in_head = False
        self._deaf = False  # nothing that comes can be understood any more
        self._too_late: asyncio.TimerHandle | None = None
        self._awaited = ""  # what it is too late for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if not self._in_message:
            data = self._head + data if self._head else data
            end = data.find(b"\r\n\r\n")
            if (end if end >= 0 else len(data)) > HEAD_BYTES:
                self._refuse(Refused(431, f"Request line and headers exceed {HEAD_BYTES} bytes."))
                return
            if end < 0 and b"\n\n" not in data:
                self._head = data
                self._unset_keepalive_if_required()
                self._await("head")
                return
            self._head = b""
            if _UPGRADE.search(data, 0, end + 2):
                data = _UPGRADE.sub(b"", data[: end + 2]) + data[end + 2 :]
        super().data_received(data)
        self._await_rest()

    def on_message_begin(self) -> None:
        self._in_message = self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._deaf = True  # another protocol listens now
        self._await("")
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade in a pipelined request, that was not seen in time."""
        self._refuse(Refused(400, "Offer to upgrade in the first request of a connection."))

    def send_400_response(self, msg: str) -> None:
        """Of what the parser has refused."""
        if self._in_message and not self._in_head and not self.cycle.response_complete:
            self._refuse(BodyIncomplete(), at_once=True)
        else:
            self._refuse(Refused(400, "This is no HTTP, or a method that nobody knows."))

    def _refuse(self, refused: Refused, *, at_once: bool = False) -> None:
        self._deaf = True
        self._await("")
        if self.cycle is not None and not self.cycle.response_complete and not at_once:
            last = self.pipeline[0][0] if self.pipeline else self.cycle
            last.keep_alive = False
            return
        length = str(len(refused.body)).encode()
        headers = (b"content-type: application/json\r\ncontent-length: ", length, b"\r\n")
        head = (STATUS_LINE[refused.status], *headers, b"connection: close\r\n\r\n")
        self.transport.write(b"".join((*head, refused.body)))
        self.transport.close()

    def _await_rest(self) -> None:
        if self._deaf:
            return
        if self._in_head:  # a pipelined one, that came in pieces
            self._await("head")
        elif self._in_message:
            self._await("body")
        elif self._awaited:
            self._await("")

    def _await(self, what: str) -> None:
        """Hang up on who does not finish it in time, counted from its first byte."""
        if what == self._awaited:
            return
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None
        self._awaited = what
        if what:
            seconds = HEAD_SECONDS if what == "head" else BODY_SECONDS
            self._too_late = self.loop.call_later(seconds, self.transport.abort)


async def watch_parent() -> None:
    """At the start of a process that another one has started: end when that is gone, instead of
    holding the port against its successor."""
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


async def leave() -> None:
    """At the very end: threads that hang on a server would be waited for without a bound."""
    timer = threading.Timer(LEAVE_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()


def serve(application: str = APPLICATION, *, host: str, port: int, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted; returns at the end.

    `workers`: processes that share the port, under one that starts them again. Ends the process
    with exit code 1 or 3 if the port is taken or the application does not start.
    """
    # uvicorn hands the signal on when it has stopped: a stop as ordered is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        application,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http=HttpProtocol,
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,  # ours is Django's
        log_level="warning",
        access_log=False,  # the gateway's journal says more
        server_header=False,
        proxy_headers=False,  # whom to believe is the gateway's to say
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        # A worker that is busy on two full cores is not a dead one: it would be killed.
        timeout_worker_healthcheck=30,
    )
