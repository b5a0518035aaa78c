"""Spans of the platform's steps (guarantees.md#r20): its one module that knows OpenTelemetry, and of
that only the API. Without an SDK a step has ids for the log lines, and nothing else."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)

from outbox.envelope import TRACEPARENT

__all__ = [
    "CLIENT",
    "CONSUMER",
    "PRODUCER",
    "Step",
    "context_of",
    "current_step",
    "current_traceparent",
    "record_error",
    "step",
    "writable",
]

PRODUCER, CONSUMER, CLIENT = SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT
Value = str | int | bool | list[int]

LINKS = 100  # of one span; as many ids as a log line names
# A message may carry a whole event, and a span is kept in memory until it is sent.
_MESSAGE_LENGTH = 2_000
_STACK_LENGTH = 16_000

_tracer = trace.get_tracer("outbox")


class Step:
    """A step under way, which records attributes."""

    __slots__ = ("_span", "forgotten")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.forgotten = False

    @property
    def recorded(self) -> bool:
        """Whether a receiver gets its attributes: asked before costly ones are computed."""
        return self._span.is_recording()

    def record(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes, named as OpenTelemetry's conventions name them or `outbox.…`."""
        self._span.set_attributes(attributes)

    def link(self, traceparents: Iterable[str]) -> None:
        """Link the traces of events, each once, the first hundred."""
        if not self.recorded:
            return
        found = [context for text in dict.fromkeys(traceparents) if (context := _context(text))]
        for context in found[:LINKS]:
            self._span.add_link(context)
        if len(found) > LINKS:
            self._span.set_attribute("outbox.links_left_out", len(found) - LINKS)

    def fail(self, kind: str, reason: str) -> None:
        """Mark it as failed by something that is no exception; `kind` is one of few words."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR, writable(reason[:_MESSAGE_LENGTH]))

    def forget(self) -> None:
        """There was nothing to do: a span that is never ended is never sent."""
        self.forgotten = True


@contextmanager
def step(name: str, kind: SpanKind, *, parent: str = "") -> Iterator[Step]:
    """The block as a span, the current one in it; an exception that leaves the block is recorded.

    `parent`: traceparent of the step that asked for this one; without, it begins a trace of its own.
    """
    above = _context(parent)
    span = _tracer.start_span(name, context=_under(above), kind=kind)
    if not span.is_recording():
        span = _with_ids(span, above)
    begun = Step(span)
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield begun
        except Exception as error:
            record_error(error)
            raise
        finally:
            if not begun.forgotten:
                span.end()


def _with_ids(span: Span, above: SpanContext | None) -> Span:
    """Where no SDK makes them, the ids are made here; none is a secret, each must only differ from
    all others. The trace counts as recorded, as it does where a request begins one."""
    own = span.get_span_context()
    if own.is_valid and (above is None or own.span_id != above.span_id):
        return span
    made = random.getrandbits
    trace_id = above.trace_id if above else made(128) or 1
    flags = above.trace_flags if above else TraceFlags(TraceFlags.SAMPLED)
    return NonRecordingSpan(
        SpanContext(trace_id, made(64) or 1, is_remote=False, trace_flags=flags)
    )


def current_step() -> Step:
    """The step that this code is part of; an empty one where there is none."""
    return Step(trace.get_current_span())


def current_traceparent() -> str:
    """The traceparent of the current span, for work that continues from it; empty without
    one."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def record_error(error: BaseException) -> None:
    """Write an exception to the current span, if there is one, and mark the span as failed."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    message = writable(str(error)[:_MESSAGE_LENGTH])
    stack = writable("".join(traceback.format_exception(error))[-_STACK_LENGTH:])
    span.record_exception(error, {"exception.message": message, "exception.stacktrace": stack})
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {message}")


def writable(text: str) -> str:
    """Text as protobuf can hold it: half characters, of paths and payloads that are no UTF-8, are
    spelt out. One that is not would cost the whole batch of spans."""
    return text.encode("utf-8", "backslashreplace").decode()


def context_of(traceparent: str) -> Context:
    """The context under which a span is a child of this one, or the first of its trace; never a
    child of whatever happens to be current."""
    return _under(_context(traceparent))


def _under(parent: SpanContext | None) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()


def _context(traceparent: str) -> SpanContext | None:
    match = TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    flags = TraceFlags(int(match[3], 16))
    return SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=flags)
