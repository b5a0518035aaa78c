"""The caller and the ids of a request, as the gateway determined them."""

from __future__ import annotations

from contextvars import ContextVar

from outbox.envelope import NO_TRACE, TraceContext

__all__ = [
    "CURRENT_CALLER",
    "CURRENT_SCOPES",
    "CURRENT_TRACE",
    "caller",
    "is_granted",
    "trace_context",
]

CURRENT_TRACE: ContextVar[TraceContext] = ContextVar("current_trace", default=NO_TRACE)
CURRENT_CALLER: ContextVar[str] = ContextVar("current_caller", default="anonymous")
CURRENT_SCOPES: ContextVar[frozenset[str] | None] = ContextVar("current_scopes", default=None)


def trace_context() -> TraceContext:
    """The ids of this request, set by the gateway around it."""
    return CURRENT_TRACE.get()


def caller() -> str:
    """Who sent it; `anonymous` where no key is asked for."""
    return CURRENT_CALLER.get()


def is_granted(scope: str) -> bool:
    """Whether its key has this scope; yes to all where no key is asked for and none was sent."""
    scopes = CURRENT_SCOPES.get()
    return scopes is None or scope in scopes
