"""What a journey is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings

from eventsite.roles import ROLES
from outbox.envelope import span_fields

__all__ = ["Journey", "Stop", "between", "request_of", "worker_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One station. `at` is None for what has not happened yet; `step_ms` is the time since the
    stop before, `total_ms` since the commit. `process` is the name of the processes that do this step, as
    in the table of roles; it is empty where the step is not bound to one of them."""

    name: str
    state: str
    at: datetime | None = None
    total_ms: float | None = None
    step_ms: float | None = None
    detail: str = ""
    process: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """One event and its stops: what has happened by time, then what is still to come."""

    event_id: UUID
    type: str
    topic: str
    key: str
    traceparent: str
    correlation_id: str
    stops: Sequence[Stop]


def worker_of(queue: str) -> str:
    """Name of the workers that serve a Celery queue; empty if no role has it."""
    for role, queues in settings.WIRING.roles.items():
        if queue in queues:
            return ROLES[role].process
    return ""


def request_of(traceparent: str, correlation_id: str, *, source: str = "") -> Stop | None:
    """The request that an event or a notification comes from, as its row names it. The row does not say
    when it came. None if the row names none, because something else wrote it: a command, a test."""
    if not (traceparent or correlation_id):
        return None
    known = {
        "source": source,
        "correlation id": correlation_id,
        "trace": span_fields(traceparent).get("trace_id", traceparent),
    }
    detail = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    return Stop(name="request", state="accepted", detail=detail, process="web")


def between(start: datetime, end: datetime) -> float:
    """Milliseconds."""
    return round((end - start).total_seconds() * 1000, 3)
