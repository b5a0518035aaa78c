"""The web process: uvicorn with our application, and bounds for requests that never end.

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
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import httptools
import uvicorn
from prometheus_client import multiprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from eventsite.web.cork import Corked
from eventsite.web.gateway.refusals import BodyIncomplete, Refused
from eventsite.web.socket_protocol import MESSAGE_BYTES, PING_SECONDS, SocketProtocol
from eventsite.web.workers import Workers

__all__ = ["APPLICATION", "HttpProtocol", "forget_the_dead", "leave", "serve", "watch_parent"]

APPLICATION = "eventsite.asgi:application"
HEAD_SECONDS = 10.0  # for request line and headers
HEAD_BYTES = 65_536
BODY_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 75  # longer than the pools of usual clients keep an idle connection
# For requests under way at the stop and everything after them: a hanging server must not keep
# this process from stopping within ten seconds.
STOP_SECONDS = 6
LEAVE_SECONDS = 3.0
# For each answer of a worker to its supervisor: one that is only busy on two full cores is not to be
# killed. A worker that is starting has longer, see workers.py.
ANSWER_SECONDS = 10
# Connections that come while the loop is busy. Those it has are bounded by the limit of open files,
# what waits in them by the queues behind it.
BACKLOG = 16_384
# A method that llhttp does not know, as RFC 9110 (5.6.2) spells a token.
_METHOD = re.compile(rb"(?:\r\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ")
# The beginning of a request of which not even the method is complete.
_METHOD_BEGUN = re.compile(rb"(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_SPACES = b" \t"
_VERSIONS = frozenset({"1.1", "1.0"})  # llhttp also knows 0.9 and, in the form of 1.1, 2.0


class _Pipelined(Exception):
    """A request began before the answer to the one before it was complete."""


class HttpProtocol(HttpToolsProtocol):
    """One connection, with the bounds that uvicorn leaves open.

    llhttp reads each request once, and its callbacks say where head and body end. What is added to it
    is in docs/http.md#what-the-server-refuses. An offer to upgrade is removed unless it is a plain
    WebSocket handshake, because llhttp would take the body for the new protocol. One request at a time:
    no answer overtakes another one, and nothing is kept in memory for later."""

    def __init__(
        self,
        *args: Any,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = {"head": head_seconds, "body": body_seconds}
        self._reading = ""  # "head", "body", or "" between two requests
        self._read = 0  # bytes since the head began, of a body since its last part
        self._stopped = False  # nothing that comes now is read
        self._method = ""  # of this request, if llhttp does not know it
        self._method_begun = b""  # kept until it is complete: llhttp refuses one as soon as it can
        self._upgrade_offered = False
        self._too_late: asyncio.TimerHandle | None = None
        self._awaited = ""  # what the timer is for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = Corked(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._corked))
        self._await("head")

    def eof_received(self) -> None:
        """The transport closes afterwards. A client that has closed only its own side gets no
        answer: to send one, every connection of a client that is gone would have to stay open
        until there is an answer."""
        self._corked.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data and not self._stopped:
            room = len(data) if self._reading == "body" else HEAD_BYTES - self._read
            piece, data = data[:room], data[room:]
            self._read += len(piece)  # the callbacks set it back
            self._feed(piece)
            if self._read < HEAD_BYTES or self._stopped:
                continue
            if self._is_answering() and self._reading != "body":  # empty lines without end
                self._end_with_this_answer()
            else:
                self._refuse(Refused(431, f"The headers exceed {HEAD_BYTES} bytes."))
        if self._stopped:
            return
        if self._reading == "body":
            self._await("body")
        elif self._is_answering() or self.timeout_keep_alive_task is not None:
            self._await("")
        else:  # also if nothing but empty lines came
            self._await("head")

    def _feed(self, data: bytes) -> None:
        between = not self._reading
        if between:
            data, self._method_begun = self._method_begun + data, b""
            if b" " not in data and _METHOD_BEGUN.fullmatch(data) and not self._is_answering():
                self._method_begun = data
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            unknown = _METHOD.match(data) if between and not self._method else None
            if unknown is None:
                self._refuse(_malformed())
            elif unknown[1] != unknown[1].upper():  # Django would take it for the one it knows
                self._refuse(Refused(501, "Unknown method: methods are written in upper case."))
            else:
                self._method = unknown[1].decode()
                self._read_again(b"GET ", data[unknown.end() :])
        except httptools.HttpParserError as error:
            self._refuse_for(error.__context__)

    def _read_again(self, *parts: bytes) -> None:
        """With a new parser; the old one can read no more."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        for part in parts:
            if part and not self._stopped:
                self._feed(part)

    def _upgrade(self, rest: bytes) -> None:
        """Behind a head with an offer to upgrade, and the parser has stopped. `rest`: its body and
        what follows."""
        if not self._upgrade_offered:
            self._stopped = True  # another protocol reads from here on
            self._await("")
            self.handle_websocket_upgrade()
            return
        self._upgrade_offered = False
        line = f" HTTP/{self.parser.get_http_version()}\r\n".encode()
        head = [self.parser.get_method(), b" ", self.url, line]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self._read_again(b"".join([*head, b"\r\n"]), rest)

    def on_message_begin(self) -> None:
        if self._is_answering():
            raise _Pipelined
        self._reading = "head"
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading == "head":
            super().on_header(name, value.strip(_SPACES))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and not self._is_handshake():
            if self.parser.get_method() == b"CONNECT":
                raise Refused(501, "This server is no proxy: it does not implement CONNECT.")
            self._upgrade_offered = True
            return
        if self.parser.get_http_version() not in _VERSIONS:
            raise Refused(505, "This server speaks HTTP/1.1 and HTTP/1.0.")
        super().on_headers_complete()
        if self._method:
            self.scope["method"], self._method = self._method, ""
        self._reading = "body"
        self._read = 0

    def _is_handshake(self) -> bool:
        names = {name for name, _ in self.headers}
        return (
            self.parser.get_method() == b"GET"
            and not self._method
            and self._should_upgrade()
            and names.isdisjoint((b"content-length", b"transfer-encoding"))
        )

    def on_body(self, body: bytes) -> None:
        self._read = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_offered:
            return
        self._reading = ""
        self._read = 0
        super().on_message_complete()
        if self.parser.should_upgrade():
            return
        if self.cycle.response_complete:  # answered before its body came
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse_for(self, reason: BaseException | None) -> None:
        """What a callback raised, or None: the parser itself did not take it."""
        if isinstance(reason, _Pipelined):
            self._end_with_this_answer()
        elif isinstance(reason, Refused):
            self._refuse(reason)
        else:
            self._refuse(BodyIncomplete() if self._reading == "body" else _malformed())

    def _end_with_this_answer(self) -> None:
        self._stopped = True
        self._await("")
        self.cycle.keep_alive = False

    def _refuse(self, refused: Refused) -> None:
        """Answer, unless the application has begun to, and hang up."""
        self._stopped = True
        self._await("")
        begun = self._reading == "body" and self.cycle.response_started
        if self._is_answering():  # the application waits for the body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not begun:
            length = str(len(refused.body)).encode()
            headers = (b"content-type: application/json\r\ncontent-length: ", length, b"\r\n")
            head = (STATUS_LINE[refused.status], *headers, b"connection: close\r\n\r\n")
            self.transport.write(b"".join((*head, refused.body)))
        self.transport.close()

    def _await(self, what: str) -> None:
        """Refuse a request whose head or body is not complete in time, counted from its first byte."""
        if what == self._awaited:
            return
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None
        self._awaited = what
        if what:
            self._too_late = self.loop.call_later(self._seconds[what], self._time_is_up, what)

    def _time_is_up(self, what: str) -> None:
        if not (self._reading or self._method_begun) or self.transport.get_write_buffer_size():
            self.transport.abort()  # nothing to answer, or nobody who reads answers
        else:
            self._refuse(
                Refused(408, f"The {what} was not complete within {self._seconds[what]:g} s.")
            )


def _malformed() -> Refused:
    return Refused(400, "Malformed HTTP request.")


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
    # uvicorn raises the signal again after it has stopped; an ordered stop is not a failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http=HttpProtocol,
        ws=SocketProtocol,
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        ws_per_message_deflate=False,  # its memory is several times that of the socket
        lifespan="on",
        log_config=None,  # ours is Django's
        log_level="warning",
        access_log=False,  # the gateway's access log says more
        server_header=False,
        proxy_headers=False,  # the gateway decides which proxies to trust
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_worker_healthcheck=ANSWER_SECONDS,
    )
    if workers > 1:
        started = Workers(config, [config.bind_socket()]).serve()
    else:
        config.load_app()
        alone = uvicorn.Server(config)
        with suppress(KeyboardInterrupt):
            alone.run()
        started = alone.started
    if not started:
        sys.exit(STARTUP_FAILURE)
