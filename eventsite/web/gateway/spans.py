"""The span of a request: the gateway's one module that knows OpenTelemetry, and only its API.

Attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, StatusCode

from eventsite.web.gateway.asgi_types import Scope
from eventsite.web.gateway.ids import RequestIds
from eventsite.web.gateway.metrics import METHODS
from eventsite.web.gateway.routes import UNKNOWN
from outbox.tracing import context_of, writable

__all__ = ["RequestSpan"]

_tracer = trace.get_tracer("eventsite.gateway")


class RequestSpan:
    """Current from when it is made until its end, also on Django's threads. `ids`: the request's,
    with those of the span in place of what was made up for it.

    Named after the route's pattern, as in log and metrics, never after the path.
    """

    def __init__(self, scope: Scope, ids: RequestIds, pattern: str) -> None:
        method = scope["method"]
        self._method = method if method in METHODS else "HTTP"
        parent = f"00-{ids.trace_id}-{ids.parent_id}-{ids.flags}" if ids.parent_id else ""
        attributes = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "url.path": writable(scope["path"]),
            "url.scheme": scope.get("scheme", "http"),
            "correlation_id": ids.trace.correlation_id,
        }
        self._span = _tracer.start_span(
            self._name(pattern), context_of(parent), SpanKind.SERVER, attributes
        )
        self._token = context.attach(trace.set_span_in_context(self._span))
        made = self._span.get_span_context()
        self.ids = ids.named_by(
            trace_id=f"{made.trace_id:032x}",
            span_id=f"{made.span_id:016x}",
            flags=f"{made.trace_flags:02x}",
        )

    def end(self, pattern: str, status: int) -> None:
        """`pattern`: of the route that was found in the end; `status`: 0 if nobody answered.

        An answer from 500 on is an error; its exception has been recorded by who caught it.
        """
        context.detach(self._token)
        span = self._span
        if span.is_recording():
            span.update_name(self._name(pattern))
            if pattern != UNKNOWN.label:
                span.set_attribute("http.route", pattern)
            if status:
                span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
        span.end()

    def _name(self, pattern: str) -> str:
        return self._method if pattern == UNKNOWN.label else f"{self._method} {pattern}"
