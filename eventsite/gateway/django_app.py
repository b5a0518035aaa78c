"""Django behind ASGI on a few threads of its own.

Django's ASGIHandler makes a thread for every request and hops between it and the event loop for
each middleware; with synchronous views that costs more than the request itself. Here a request
is one hop: the whole synchronous handler runs on one of `WEB_THREADS` long-lived threads, each
with its own lasting database connection. More requests than threads wait their turn in memory
instead of fighting for the interpreter and the pool.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from django.core import signals
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import set_script_prefix

from eventsite.gateway.asgi_types import Receive, Scope, Send
from eventsite.gateway.refusals import stopping

__all__ = ["DjangoApplication", "middleware_headers"]


_WITHOUT_A_BODY = (204, 304)


class DjangoApplication(ASGIHandler):
    """ASGI application for requests whose body is in memory (the gateway has read and bounded it)."""

    def __init__(self, *, threads: int) -> None:
        super().__init__()
        self.load_middleware(is_async=False)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="django")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        body = (await receive()).get("body", b"")
        context = contextvars.copy_context()
        job = self._threads.submit(context.run, self._respond, scope, body)
        try:
            response = await asyncio.wrap_future(job)
        except asyncio.CancelledError:  # by the server, which stops and waits no longer
            if job.cancelled():  # before a thread was free for it
                raise stopping("not_stored") from None
            raise
        await self.send_response(response, cast(Any, send))

    def _respond(self, scope: Scope, body: bytes) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=type(self), scope=scope)
        request, refusal = self.create_request(dict(scope), io.BytesIO(body))
        response: Any = refusal if request is None else self.get_response(request)
        if request is not None and request.resolver_match is not None:
            scope["route"] = request.resolver_match.route
        if response.streaming:
            response = _in_memory(response)
        if response.status_code not in _WITHOUT_A_BODY:
            response.setdefault("Content-Length", str(len(response.content)))
        response.close()  # also gives an unusable database connection back, on its own thread
        return response  # type: ignore[no-any-return]


def middleware_headers() -> list[tuple[bytes, bytes]]:
    """What the middleware adds to every answer of the API, for those that are given before it."""
    response = HttpResponse()
    without = {name.lower() for name in response.headers}
    for middleware in (SecurityMiddleware, XFrameOptionsMiddleware):
        middleware(lambda _: response)(HttpRequest())
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
        if name.lower() not in without
    ]


def _in_memory(streaming: StreamingHttpResponse) -> HttpResponse:
    """Files of the admin, small; read here, where blocking is allowed."""
    response = HttpResponse(
        streaming.getvalue(), status=streaming.status_code, headers=streaming.headers
    )
    if "Content-Type" not in streaming.headers:  # of a 304: what it says is of the file
        del response["Content-Type"]
    response.cookies = streaming.cookies
    streaming.close()
    return response
