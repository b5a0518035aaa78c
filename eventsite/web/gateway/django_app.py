"""Django behind ASGI on a few threads of its own (docs/adr/0003-django-on-its-own-threads.md).

Django's ASGIHandler makes a thread for every request. Here the whole synchronous handler runs on one of
`WEB_THREADS` long-lived threads, each with its own lasting database connection. Nobody waits long for a
thread: docs/http.md#a-database-that-does-not-answer. Health, metrics and the page of operators have
threads of their own."""

from __future__ import annotations

import asyncio
import contextvars
import io
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from django.core import signals
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import set_script_prefix

from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.gateway.refusals import stopping, turned_away
from eventsite.web.gateway.routes import OF_OPERATORS, find_path
from outbox.database import patience

__all__ = ["DjangoApplication", "middleware_headers"]

OPERATORS_THREADS = 2
APART_THREADS = 2
# Seconds. Longer than lock_timeout, after which PostgreSQL itself says what it waits for.
DATABASE_SECONDS = 6.5  # that a request waits for the database, once it has a thread
ANSWERED_WITHIN = 9.0  # of its arrival, if there was not much of a queue before it
LEAST_SECONDS = 4.0  # for the database, however long it has waited for a thread
LEAST_OF_SILENT = 1.0  # the same for one that gave no answer a moment ago
ADMIN_MORE = 4.5  # of the first two: pages that look through much
QUEUE_SECONDS = 5.0  # that a request waits for a thread while the threads get nowhere
LOOK_SECONDS = 0.5

_WITHOUT_A_BODY = (204, 304)


class DjangoApplication(ASGIHandler):
    """ASGI application for requests whose body is in memory (the gateway has read and bounded it)."""

    def __init__(self, *, threads: int) -> None:
        super().__init__()
        self.load_middleware(is_async=False)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._of_operators = ThreadPoolExecutor(OPERATORS_THREADS, thread_name_prefix="operators")
        self._apart = ThreadPoolExecutor(APART_THREADS, thread_name_prefix="apart")
        self._begun_at = 0.0  # when a thread took a request last, on time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        body = (await receive()).get("body", b"")
        context = contextvars.copy_context()
        threads = self._threads_for(scope["path"])
        arrived = time.monotonic()
        job = threads.submit(context.run, self._begin, scope, body, arrived)
        queue = _Queue(self, job)
        try:
            response = await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if queue.left:
                raise turned_away("The request waited too long", scope["method"]) from None
            # by the server, which stops and waits no longer
            if job.cancelled():  # before a thread was free for it
                raise stopping(scope["method"], "not_stored") from None
            raise
        finally:
            queue.close()
        await self.send_response(response, cast(Any, send))

    def _threads_for(self, path: str) -> ThreadPoolExecutor:
        route = find_path(path)
        if route in OF_OPERATORS:
            return self._of_operators
        return self._apart if route.apart else self._threads

    def gets_nowhere(self, now: float) -> bool:
        """Whether those who wait for a thread should not wait much longer."""
        return patience.is_silent() or now - self._begun_at > QUEUE_SECONDS

    def _begin(self, scope: Scope, body: bytes, arrived: float) -> HttpResponseBase:
        """On a thread, as long as the database may keep it."""
        self._begun_at = now = time.monotonic()
        more = ADMIN_MORE if scope["path"].startswith("/admin") else 0.0
        least = LEAST_OF_SILENT if patience.is_silent() else LEAST_SECONDS
        left = max(ANSWERED_WITHIN + more - (now - arrived), least)
        with patience.within(min(left, DATABASE_SECONDS + more)):
            return self._respond(scope, body)

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


class _Queue:
    """A request's wait for a thread. It is left only where the threads get nowhere: a queue that moves is
    worth its wait."""

    def __init__(self, django: DjangoApplication, job: Future[Any]) -> None:
        self.left = False
        self._django = django
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(QUEUE_SECONDS, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._django.gets_nowhere(time.monotonic()) and self._job.cancel():
            self.left = True
        elif not self._job.running():
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)


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
