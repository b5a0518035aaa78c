"""The gateway around WebSockets: what it does for a request it does for a handshake, and what may
end an open socket stands here in one place. docs/http.md has the table of the close codes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog

from eventsite.web.gateway import metrics, refusals
from eventsite.web.gateway.access_log import Call
from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.web.gateway.callers import (
    ANONYMOUS,
    BEARER,
    bounded_as,
    caller_key,
    with_offered_key,
    within_limit,
)
from eventsite.web.gateway.handshakes import check_origin, check_query
from eventsite.web.gateway.headers import check_head, wanted_headers
from eventsite.web.gateway.ids import RequestIds, request_ids
from eventsite.web.gateway.layer import Parts, failed
from eventsite.web.gateway.open_sockets import OpenSockets
from eventsite.web.gateway.refusals import Refused, send_refusal
from eventsite.web.gateway.spans import RequestSpan
from restapi.context import CURRENT_CALLER, CURRENT_SCOPES, CURRENT_TRACE
from restapi.declaration import Path
from restapi.sockets import PUSH, CloseCode, Push, SocketRefused, UnknownMessage

__all__ = ["SocketEndpoint"]

_METHOD = "GET"  # of every handshake
_REGISTERED = range(1000, 1016)  # close codes; of the others clients make up what they like
_REASON_BYTES = 123  # that fit into a close frame
_SECRET = frozenset({b"authorization", b"x-api-key", b"sec-websocket-protocol"})

log = structlog.get_logger("gateway")


class SocketEndpoint:
    """ASGI application of one declared WebSocket, and of all that nobody has declared."""

    def __init__(
        self,
        parts: Parts,
        sockets: OpenSockets,
        path: Path,
        consumer: Application | None,
        takes: Sequence[str] = (),
    ) -> None:
        self.parts, self.sockets, self.path = parts, sockets, path
        self._consumer = consumer
        self._takes = frozenset(takes)
        self.sent, self.received = (
            metrics.RequestTally(metrics.SOCKET_MESSAGES.labels(path.label, direction))
            for direction in ("sent", "received")
        )
        for code in (CloseCode.OUR_FAULT, CloseCode.TOO_SLOW):  # as 0, so that the first is a rise
            metrics.SOCKETS_CLOSED.labels(path.label, str(int(code)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found, twice = wanted_headers(scope["headers"])
        ids = request_ids(found)
        span = None
        if self.parts.rules.traced:
            span = RequestSpan({"method": _METHOD, **scope}, ids, self.path.label)
            ids = span.ids
        socket = _Socket(self, scope, send, ids, span)
        CURRENT_TRACE.set(ids.trace)
        CURRENT_CALLER.set(ANONYMOUS)
        CURRENT_SCOPES.set(None)
        entered = False
        try:
            await self._admit(socket, scope, found, twice)
            self.sockets.enter(socket)
            entered = True
            assert self._consumer is not None
            incoming = _incoming(receive, socket, self._takes)
            await self._consumer(_for_consumer(scope, socket), incoming, socket.send)
            await socket.end()
        except BaseException as error:  # noqa: BLE001  (it is answered, or raised again)
            await socket.fail(error)
        finally:
            if entered:
                self.sockets.leave(socket)
            socket.note_end()

    async def _admit(
        self, socket: _Socket, scope: Scope, found: Mapping[bytes, bytes], twice: bytes
    ) -> None:
        limiter, rules = self.parts.limiter, self.parts.rules
        check_head(scope, found, twice)
        check_origin(found, hosts=rules.hosts, origins=rules.origins)
        if self.path.keyed:
            check_query(scope)
            found = with_offered_key(found, scope["subprotocols"])
            socket.answers_bearer = scope["subprotocols"][:1] == [BEARER]
            keyring, required = self.parts.keyring, rules.keys_required
            key = await caller_key(keyring, found, self.path, _METHOD, required=required)
            if key is not None:
                socket.caller, socket.sha256 = key.name, key.sha256
        proxies = rules.trusted_proxies
        socket.bounded_as = bounded_as(socket.caller, scope, found, proxies=proxies)
        if limiter is not None and self.path.limited:
            await within_limit(limiter, socket.bounded_as)
        if self._consumer is None:
            raise Refused(404, f"There is no WebSocket at {scope['path']}.")


class _Socket:
    """One WebSocket from its handshake to its end: what the consumer sends passes through it."""

    def __init__(
        self,
        endpoint: SocketEndpoint,
        scope: Scope,
        send: Send,
        ids: RequestIds,
        span: RequestSpan | None,
    ) -> None:
        self.bounded_as = ""
        self.sha256: bytes | None = None
        self.needs = endpoint.path.read
        self.caller = ANONYMOUS
        self.answers_bearer = False
        self._endpoint = endpoint
        self._route = endpoint.path.label
        self._raw_path = scope["path"]
        self._send = send
        self._push: Push = scope.get("extensions", {}).get(PUSH, lambda _: False)
        self._ids = ids
        self._span = span
        self._began = time.perf_counter()
        self._status = 0  # of the handshake; 0: not answered
        self._code = 0  # of the end; 0: it is open
        self._reason = ""
        self._sent = self._received = 0
        self._waiting = 0  # messages on their way to the client

    @property
    def is_open(self) -> bool:
        return self._status == 101 and not self._code

    async def send(self, message: Message) -> None:
        """For the consumer. What comes after the end is dropped: it hears of it by its disconnect,
        which would not come to one that an exception has ended."""
        kind = message["type"]
        if self._code or self._status not in (0, 101):
            return
        if kind == "websocket.accept" and not self._status:
            await self._accept(message)
        elif kind == "websocket.close":
            if self.is_open:
                await self.close(message.get("code", CloseCode.DONE), message.get("reason") or "")
            else:
                await self._refuse(Refused(403, "This WebSocket may not be opened."))
        elif kind == "websocket.send" and self._status:
            await self._send_message(message)
        else:
            raise RuntimeError(f"A consumer may not send {kind} now.")

    def push(self, frame: bytes) -> bool:
        """As restapi.sockets says of PUSH; behind what waits already."""
        if not self.is_open or self._waiting or not self._push(frame):
            return False
        self._sent += 1
        self._endpoint.sent.inc()
        return True

    async def close(self, code: int, reason: str) -> None:
        """Once; the consumer hears of it by its disconnect."""
        if not self.is_open:
            return
        reason = reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore")
        self._code, self._reason = code, reason
        try:
            await self._deliver({"type": "websocket.close", "code": code, "reason": reason})
        except Exception:  # a code that no server may send
            self._code = 0
            raise

    def hear_end(self, code: int, reason: str) -> None:
        """The client, or the server under us, has closed it."""
        if not self._code:
            self._code, self._reason = code, reason

    def hear_message(self) -> None:
        self._received += 1
        self._endpoint.received.inc()

    async def end(self) -> None:
        if self.is_open:
            await self.close(CloseCode.DONE, "")
        elif not self._status and not self._code:
            log.error("websocket_unanswered", path=self._route)
            await self._refuse(refusals.server_error())

    async def fail(self, error: BaseException) -> None:
        """The consumer, or the handshake before it, has raised. What ends the process is raised again."""
        refused, code = _outcome_of(error)
        if not self._status and not self._code:
            await self._refuse(refused)
        elif self.is_open:
            await self.close(code, str(error) if code == CloseCode.UNKNOWN_KIND else "")

    def note_end(self) -> None:
        seconds = time.perf_counter() - self._began
        if self._status != 101:
            self._end_span()
            access_log = self._endpoint.parts.access_log
            access_log.note(self._call, method=_METHOD, status=self._status, seconds=seconds)
            return
        metrics.SOCKETS_OPEN.labels(self._route).dec()
        label = str(int(self._code)) if self._code in _REGISTERED else "other"
        metrics.SOCKETS_CLOSED.labels(self._route, label).inc()
        self._endpoint.parts.access_log.note_socket(
            "websocket_closed",
            self._call,
            code=int(self._code),
            reason=self._reason[:200],
            seconds=round(seconds, 3),
            sent=self._sent,
            received=self._received,
        )

    async def _accept(self, message: Message) -> None:
        message["headers"] = [*message.get("headers", ()), *self._ids.headers()]
        if self.answers_bearer:
            message["subprotocol"] = BEARER
        if not await self._deliver(message):
            self.hear_end(1006, "")  # the client has disconnected meanwhile
            return
        self._status = 101
        self._end_span()
        metrics.SOCKETS_OPEN.labels(self._route).inc()
        metrics.SOCKETS_OPENED.labels(self._route).inc()
        self._endpoint.parts.access_log.note_socket("websocket_opened", self._call)

    async def _send_message(self, message: Message) -> None:
        """Several tasks of a consumer may send at once; the client is slow if none gets through."""
        sockets = self._endpoint.sockets
        if not self._waiting:
            sockets.begin_send(self)
        self._waiting += 1
        try:
            if await self._deliver(message):
                self._sent += 1
                self._endpoint.sent.inc()
        finally:
            self._waiting -= 1
            if self._waiting:
                sockets.begin_send(self)
            else:
                sockets.end_send(self)

    async def _refuse(self, refused: Refused) -> None:
        self._status = refused.status
        headers = [*self._endpoint.parts.rules.headers, *self._ids.headers()]
        try:
            await send_refusal(self._send, refused, headers, "websocket.http.response")
        except OSError:
            self._status = 0

    async def _deliver(self, message: Message) -> bool:
        """Whether somebody was there to send it to."""
        try:
            await self._send(message)
        except OSError:  # ASGI has it for a client that has disconnected
            return False
        return True

    def _end_span(self) -> None:
        """It is of the handshake: a span as long as a socket would be exported at its end."""
        if self._span is not None:
            self._span.end(self._route, self._status)
            self._span = None

    @property
    def _call(self) -> Call:
        return Call(self._raw_path, self._route, self.caller, self._ids)


def _outcome_of(error: BaseException) -> tuple[Refused, int]:
    """The answer to a handshake that ended in this exception, and the close code of an open socket."""
    if isinstance(error, Refused):
        return error, CloseCode.OUR_FAULT
    if isinstance(error, SocketRefused):
        details = [{"field": field, "message": message} for field, message in error.details]
        retry = refusals.RETRY if error.status in (429, 503) else ()
        return Refused(error.status, error.message, retry, details=details), CloseCode.OUR_FAULT
    if isinstance(error, UnknownMessage):
        return refusals.server_error(), CloseCode.UNKNOWN_KIND
    stops = isinstance(error, asyncio.CancelledError)
    return failed(error, _METHOD), CloseCode.GOING_AWAY if stops else CloseCode.OUR_FAULT


def _incoming(receive: Receive, socket: _Socket, takes: frozenset[str]) -> Receive:
    """What the consumer receives; their size is bounded by the server, which need not read all of
    a large one."""

    async def checked() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive":
            kind = "binary" if message.get("text") is None else "text"
            if kind not in takes:
                await socket.close(
                    CloseCode.UNKNOWN_KIND, f"This WebSocket accepts no {kind} messages."
                )
                return {"type": "websocket.disconnect", "code": int(CloseCode.UNKNOWN_KIND)}
            socket.hear_message()
        elif message["type"] == "websocket.disconnect":
            socket.hear_end(message.get("code", 1005), message.get("reason") or "")
        return message

    return checked


def _for_consumer(scope: Scope, socket: _Socket) -> Scope:
    """The consumer gets the caller's name (restapi.context), never his key, and the gateway's push."""
    offered = scope["subprotocols"]
    return {
        **scope,
        "headers": [each for each in scope["headers"] if each[0] not in _SECRET],
        "subprotocols": [] if offered[:1] == [BEARER] else offered,
        "extensions": {**scope.get("extensions", {}), PUSH: socket.push},
    }
