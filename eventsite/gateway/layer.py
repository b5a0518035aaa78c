"""The layer itself: pure ASGI, so that it also wraps answers given before Django."""

from __future__ import annotations

import time
from typing import cast

import structlog
from django.conf import settings
from django.urls import Resolver404, resolve

from eventsite.gateway import metrics
from eventsite.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.gateway.ids import RequestIds, request_ids
from restapi.context import CURRENT_CALLER, CURRENT_TRACE
from restapi.json import JSONRenderer

__all__ = ["Gateway"]

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
UNKNOWN = "unknown"
QUIET = frozenset({"health", "health/ready", "metrics"})

log = structlog.get_logger("gateway")


class Gateway:
    """Gives every request its ids and every answer its log line, whoever answers."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        ids = request_ids(scope["headers"])
        CURRENT_TRACE.set(ids.trace)
        answer = _Answer(send, ids)
        try:
            body = await _read_body(scope, receive)
            if body is None:
                scope["route"] = _route(scope["path"])
                await _refuse(
                    answer, 413, f"The body is larger than {settings.MAX_BODY_BYTES} bytes."
                )
            else:
                scope = _with_length(scope, body)
                await self._application(scope, _replay(body), answer)
        except BodyIncomplete:
            scope["route"] = _route(scope["path"])
            await _refuse(answer, 400, "The body could not be read to its end.")
        finally:
            _account(scope, answer.status, time.perf_counter() - started)


class BodyIncomplete(Exception):
    """The body broke off: the client hung up, or what came is not in the coding it announced.

    Servers tell both as a disconnect. Who is still there gets an answer, the others do not mind.
    """


class _Answer:
    """Passes an answer on, with the ids added and the status remembered."""

    def __init__(self, send: Send, ids: RequestIds) -> None:
        self._send = send
        self._ids = ids
        self.status = 0  # 0: the client hung up, or nobody answered

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            trace = self._ids.trace
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._ids.request_id.encode()),
                (b"x-correlation-id", trace.correlation_id.encode()),
                (b"traceparent", trace.traceparent.encode()),
            ]
        await self._send(message)


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body, or None as soon as it is known to be larger than MAX_BODY_BYTES."""
    if _declared_length(scope) > settings.MAX_BODY_BYTES:
        return None
    body = b""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyIncomplete
        body += cast(bytes, message.get("body", b""))
        if len(body) > settings.MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _with_length(scope: Scope, body: bytes) -> Scope:
    """Django reads a body only if its length is told, which one sent in chunks does not do."""
    headers = list(scope["headers"])
    if not body or any(name == b"content-length" for name, _ in headers):
        return scope
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}


def _replay(body: bytes) -> Receive:
    """A `receive` for the application: the body in one message."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _refuse(send: Send, status: int, message: str) -> None:
    """An error in the shape of all others, without reading the rest of the request."""
    body = JSONRenderer().render({"error": message, "details": []})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _account(scope: Scope, status: int, seconds: float) -> None:
    route = scope.get("route", UNKNOWN)  # set by whoever answered
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    metrics.REQUESTS.labels(method, route, str(status)).inc()
    metrics.DURATION.labels(method, route).observe(seconds)
    if route in QUIET:
        return
    log.info(
        "request",
        method=method,
        path=scope["path"],
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 2),
        caller=CURRENT_CALLER.get(),
    )


def _route(path: str) -> str:
    """The pattern that would serve a path; everything unknown is one label."""
    try:
        return resolve(path).route
    except Resolver404:
        return UNKNOWN
