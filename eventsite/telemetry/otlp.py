"""Spans on their way to a receiver: the one place that sets OpenTelemetry's SDK up.

They are sent over OTLP/HTTP by a thread that is made at the first span of a process, so after any fork;
a process that stops waits two seconds at most. Other OTEL_… variables the SDK reads for itself."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from django.core.signals import got_request_exception
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from outbox.tracing import record_error

__all__ = ["send_spans"]

STOP_SECONDS = 2.0
EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

log = structlog.get_logger("eventsite.otlp")


def send_spans(*, to: str, service: str) -> Callable[[], None]:
    """Send the spans of this process, and of those that it forks, to this URL from now on; returns
    what sends the last of them.

    `service`: their service.name, unless the environment says another (OTEL_SERVICE_NAME,
    OTEL_RESOURCE_ATTRIBUTES).
    """
    sender = _Sender(to)
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,  # Python's last moment is too late to begin a thread, and may not come
    )
    provider.add_span_processor(sender)
    trace.set_tracer_provider(provider)
    got_request_exception.connect(_record_exception)
    return sender.shutdown


def _record_exception(**kwargs: Any) -> None:
    """What Django makes a 500 of; the span is that of the request."""
    error = sys.exc_info()[1]
    if error is not None:
        record_error(error)


class _Sender(SpanProcessor):
    """The SDK's processor, made at the first span of a process: its thread does not survive a fork."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._batches: BatchSpanProcessor | None = None
        self._owner = 0
        self._guard = threading.Lock()

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._current().on_end(span)

    def shutdown(self) -> None:
        batches = self._batches if self._owner == os.getpid() else None
        if batches is None:
            return
        # The SDK would wait for half a minute. What is left after two seconds ends with the process.
        thread = threading.Thread(target=batches.shutdown, name="spans-stop", daemon=True)
        thread.start()
        thread.join(STOP_SECONDS)

    def _current(self) -> BatchSpanProcessor:
        if self._batches is None or self._owner != os.getpid():
            with self._guard:
                if self._batches is None or self._owner != os.getpid():
                    self._batches = BatchSpanProcessor(_Exporter(self._endpoint))
                    self._owner = os.getpid()
        return self._batches


class _Exporter(OTLPSpanExporter):
    """The SDK's exporter, but a receiver that is unavailable is one line, and its return another."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint=endpoint)
        self._reasons = _Reasons()
        self._lost = 0
        logging.getLogger(EXPORTER_LOG).addFilter(self._reasons)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._reasons.first = ""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.warning("spans_sent_again", lost=self._lost)
            self._lost = 0
            return result
        if not self._lost:
            log.warning("spans_not_sent", endpoint=self._endpoint, error=self._reasons.first)
        self._lost += len(spans)
        return result


class _Reasons(logging.Filter):
    """Keeps the exporter's lines about a failure, one for each try and batch, out of the log,
    and remembers the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False
