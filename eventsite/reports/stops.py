"""What a journey is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

__all__ = ["Journey", "Stop", "between"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One station. `at` is None for what has not happened yet; `step_ms` is the time since the
    stop before, `total_ms` since the commit."""

    name: str
    state: str
    at: datetime | None = None
    total_ms: float | None = None
    step_ms: float | None = None
    detail: str = ""


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


def between(start: datetime, end: datetime) -> float:
    """Milliseconds."""
    return round((end - start).total_seconds() * 1000, 3)
