"""The layer itself: pure ASGI, so that it also wraps answers given before Django."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import structlog

from eventsite.web.gateway import refusals, routes
from eventsite.web.gateway.access_log import AccessLog, Call
from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.web.gateway.callers import ANONYMOUS, bounded_as, caller_key, within_limit
from eventsite.web.gateway.headers import check_head, wanted_headers
from eventsite.web.gateway.ids import RequestIds, request_ids
from eventsite.web.gateway.keyring import Keyring
from eventsite.web.gateway.rate_limit import RateLimiter
from eventsite.web.gateway.refusals import BodyIncomplete, Refused, send_refusal
from eventsite.web.gateway.spans import RequestSpan
from outbox.tracing import record_error
from restapi.context import CURRENT_CALLER, CURRENT_SCOPES, CURRENT_TRACE

__all__ = ["Gateway", "Parts", "Rules", "failed"]

# The parser takes no more than 20 digits, but any zeros before them.
_LENGTH = re.compile(rb"0*([0-9]{1,20})")

log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say. `headers`: what Django's middleware adds to every answer; `traced`:
    whether somebody takes spans; `hosts`, `origins`: whose pages may open WebSockets."""

    keys_required: bool
    trusted_proxies: int
    max_body_bytes: int
    headers: Sequence[tuple[bytes, bytes]]
    traced: bool = False
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What HTTP and WebSockets share."""

    rules: Rules
    keyring: Keyring
    limiter: RateLimiter | None
    access_log: AccessLog


class Gateway:
    """Gives every request its ids, its caller and its limit, and every answer its log line and
    its place in the metrics, whoever answers."""

    def __init__(self, application: Application, parts: Parts) -> None:
        self._application = application
        self._rules, self._keyring = parts.rules, parts.keyring
        self._limiter, self._access_log = parts.limiter, parts.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        method, path = scope["method"], scope["path"]
        found, twice = wanted_headers(scope["headers"])
        ids = request_ids(found)
        route = routes.find_path(path)
        if route is routes.METRICS:  # who looks at them finds in them what was answered before
            self._access_log.flush()
        span = RequestSpan(scope, ids, route.label) if self._rules.traced else None
        ids = ids if span is None else span.ids
        answer = _Answer(send, ids)
        caller = ANONYMOUS
        CURRENT_TRACE.set(ids.trace)
        CURRENT_CALLER.set(caller)
        CURRENT_SCOPES.set(None)
        try:
            check_head(scope, found, twice)
            if route.keyed:
                required = self._rules.keys_required
                key = await caller_key(self._keyring, found, route, method, required=required)
                caller = key.name if key else caller
            if self._limiter is not None and route.limited:
                proxies = self._rules.trusted_proxies
                await within_limit(self._limiter, bounded_as(caller, scope, found, proxies=proxies))
            body = b""
            if _may_have_body(scope, found):
                body = await _read_body(
                    found, receive, route.max_body_bytes or self._rules.max_body_bytes
                )
            if body and found.get(b"content-length", b"0")[:1] == b"0":
                _set_length(scope, body)
            await self._application(scope, _replay(body), answer)
        except Refused as refused:
            await send_refusal(answer, refused, self._rules.headers)
        except BaseException as error:
            refusal = failed(error, method)
            if answer.status:  # too late for another answer
                raise
            await send_refusal(answer, refusal, self._rules.headers)
        finally:
            # A path that the table does not know may be known to Django.
            label = route.label if route is not routes.UNKNOWN else scope.get("route", "unknown")
            seconds = time.perf_counter() - started
            if span is not None:
                span.end(label, answer.status)
            call = Call(path, label, caller, ids)
            self._access_log.note(call, method=method, status=answer.status, seconds=seconds)


def failed(error: BaseException, method: str) -> Refused:
    """The answer to an exception; one that ends the process is raised again."""
    if isinstance(error, asyncio.CancelledError):
        # The server stops and waits no longer; by itself it would say 500, which says nothing.
        return refusals.stopping(method, "unknown")
    if not isinstance(error, Exception):
        raise error
    record_error(error)
    log.exception("unhandled_error", exc_info=error)
    return refusals.server_error()


class _Answer:
    """Passes an answer on, with the ids added and the status remembered."""

    __slots__ = ("_ids", "_send", "status")

    def __init__(self, send: Send, ids: RequestIds) -> None:
        self._send = send
        self._ids = ids
        self.status = 0  # 0: the client hung up, or nobody answered

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._ids.headers()]
        return self._send(message)


def _may_have_body(scope: Scope, found: Mapping[bytes, bytes]) -> bool:
    """Without these headers none comes (RFC 9112, 6.3), and asking for it costs a round through
    the server. Only HTTP/1.1 promises it."""
    return (
        b"content-length" in found
        or b"transfer-encoding" in found
        or scope.get("http_version") != "1.1"
    )


async def _read_body(found: Mapping[bytes, bytes], receive: Receive, at_most: int) -> bytes:
    """The whole body; refused as soon as it is known to be larger than `at_most` bytes."""
    if found.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        why = "The only Transfer-Encoding that this server knows is chunked."
        raise Refused(501, why, [refusals.CLOSE])  # RFC 9112, 6.1
    declared = _LENGTH.fullmatch(found.get(b"content-length", b""))
    if declared and int(declared[1]) > at_most:
        raise refusals.body_too_large(at_most)
    parts: list[bytes] = []
    length = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyIncomplete
        parts.append(cast(bytes, message.get("body", b"")))
        length += len(parts[-1])
        if length > at_most:
            raise refusals.body_too_large(at_most)
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else parts[0]


def _set_length(scope: Scope, body: bytes) -> None:
    """Django reads a body only if it has a length, which one sent in chunks does not have, and
    Python reads no number of more than 4,300 digits, which zeros in front can make of one."""
    headers = [each for each in scope["headers"] if each[0] != b"content-length"]
    scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]


def _replay(body: bytes) -> Receive:
    """A `receive` for the application: the body in one message."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
