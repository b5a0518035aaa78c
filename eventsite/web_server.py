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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import uvicorn
from prometheus_client import multiprocess
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from eventsite.corked import Corked
from eventsite.gateway.refusals import BodyIncomplete, Refused

__all__ = ["APPLICATION", "HttpProtocol", "forget_the_dead", "leave", "serve", "watch_parent"]

APPLICATION = "eventsite.asgi:application"
HEAD_SECONDS = 10.0  # for request line and headers
HEAD_BYTES = 65_536
BODY_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 75  # longer than the pools of usual clients keep an idle connection
# For requests under way at the stop, and for all that comes behind them: what hangs on a server may
# not keep us from stopping within ten seconds.
STOP_SECONDS = 6
LEAVE_SECONDS = 3.0
# Connections that come while the loop is busy. Those it has are bounded by the limit of open files,
# what waits in them by the queues behind it.
BACKLOG = 16_384
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*(?=\r\n)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_HANDSHAKE = re.compile(
    rb"GET (?=[^\0]*\r\nupgrade:[ \t]*websocket[ \t]*\r\n)"
    rb"(?![^\0]*\r\n(?:content-length|transfer-encoding)[ \t]*:)",
    re.IGNORECASE,
)


class HttpProtocol(HttpToolsProtocol):
    """One client, with bounds for what uvicorn leaves open.

    The head of a request is collected here and handed on whole: at most HEAD_BYTES (else 431) in
    HEAD_SECONDS, its body in BODY_SECONDS; who takes longer is hung up on. One request at a time:
    what comes before the answer to the first waits for it, so no refusal and no other protocol
    overtakes an answer; behind a chunked body it is not seen in time, and the connection ends with
    the answer (RFC 9112, 9.3.2 has clients repeat it). Offers to upgrade are taken out of a head but
    for a plain WebSocket handshake: the parser would take what follows for the new protocol, bodies
    included. Trailers are dropped. Refusals have the shape of all other errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = bytearray()  # what has come of one that is not whole
        self._in_message = self._in_head = False
        self._left: int | None = 0  # bytes of the body to come; None: in chunks
        self._behind = b""  # what has come before the answer to the request before it
        self._no_body = 0  # bytes of a message behind its head that were none of its body
        self._deaf = False  # what comes now is not for us
        self._too_late: asyncio.TimerHandle | None = None
        self._awaited = ""  # what it is too late for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = Corked(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._corked))
        self._await("head")

    def eof_received(self) -> None:
        """The transport closes behind it. To answer whoever has only ended his side, it would have to
        be kept for all that have gone, until there is an answer."""
        self._corked.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if not self._in_message and self._is_answering():
            self._behind += data
            if len(self._behind) > HEAD_BYTES:
                self.flow.pause_reading()
            return
        own, data = self._one_message(data) if self._in_message else self._whole_head(data)
        if own:
            super().data_received(own)
        self._await_rest()
        if data:
            self.data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._behind and not self.transport.is_closing():
            data, self._behind = self._behind, b""
            self.data_received(data)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _one_message(self, data: bytes) -> tuple[bytes, bytes]:
        """What of it belongs to the body that is under way, and the rest."""
        if self._left is None:
            self._no_body += len(data)
            return data, b""
        own, data = data[: self._left], data[self._left :]
        self._left -= len(own)
        return own, data

    def _whole_head(self, data: bytes) -> tuple[bytes, bytes]:
        """A head with what has come of its body, and the rest; empty: not all of it yet."""
        if not self._head:
            data = data.lstrip(b"\r\n")  # RFC 9112, 2.2
        before = len(self._head)
        self._head += data
        end = self._head.find(b"\r\n\r\n", max(before - 3, 0))
        if (end if end >= 0 else len(self._head)) > HEAD_BYTES:
            self._refuse(Refused(431, f"Request line and headers exceed {HEAD_BYTES} bytes."))
            return b"", b""
        self._unset_keepalive_if_required()
        if end < 0 and self._head.find(b"\n\n", max(before - 1, 0)) < 0:
            self._await("head")
            return b"", b""
        data, self._head = bytes(self._head), bytearray()
        if end < 0:  # no HTTP, as the parser will say
            return data, b""
        head, data = data[: end + 4], data[end + 4 :]
        if _UPGRADE.search(head) and not _HANDSHAKE.match(head):
            head = _UPGRADE.sub(b"", head)
        length = _LENGTH.search(head)
        # Where the message ends is the parser's to say; this is where it will, if it takes it.
        self._left = None if _CHUNKED.search(head) else int(length[1]) if length else 0
        own, data = self._one_message(data)
        return head + own, data

    def on_message_begin(self) -> None:
        if self._is_answering():
            self._deaf = True
            self._await("")
            self.cycle.keep_alive = False
        if not self._deaf:
            self._in_message = self._in_head = True
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._deaf:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head and not self._deaf:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._refuse(Refused(400, "This offer to upgrade cannot be understood."))
            return
        super().on_headers_complete()
        self._in_head = False
        self._no_body = 0

    def on_body(self, body: bytes) -> None:
        if not self._deaf:
            self._no_body = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._deaf:
            self._in_message = False
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        if not self._deaf:
            self._deaf = True  # another protocol listens now
            self._await("")
            super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """It was refused with its headers."""

    def send_400_response(self, msg: str) -> None:
        """Of what the parser has refused."""
        if self._deaf:
            return
        if not self._in_head and self._is_answering():
            self._refuse(BodyIncomplete())
        else:
            self._refuse(Refused(400, "This is no HTTP, or a method that nobody knows."))

    def _refuse(self, refused: Refused) -> None:
        self._deaf = True
        self._await("")
        length = str(len(refused.body)).encode()
        headers = (b"content-type: application/json\r\ncontent-length: ", length, b"\r\n")
        head = (STATUS_LINE[refused.status], *headers, b"connection: close\r\n\r\n")
        self.transport.write(b"".join((*head, refused.body)))
        self.transport.close()

    def _await_rest(self) -> None:
        if self._deaf or self._head:
            return
        if self._in_message and self._no_body > HEAD_BYTES:  # a trailer without end
            self.transport.abort()
        elif self._in_message:
            self._await("body")
        elif self.cycle is None or (self._awaited == "head" and self.cycle.response_complete):
            self._await("head")  # nothing but empty lines
        else:
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
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


async def forget_the_dead() -> None:
    """At the start of a process that shares its directory of metrics: the live gauges of one that was
    killed would be shown for ever."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(directory).glob("gauge_live*_*.db") if directory else ():
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # somebody else's, and alive


async def leave() -> None:
    """At the beginning of the end, when no request is under way any more: what hangs on a server,
    on the loop or on a thread, is not waited for without a bound."""
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
        timeout_worker_healthcheck=10,
    )
