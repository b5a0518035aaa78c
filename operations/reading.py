"""What was heard from a server, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["KAFKA", "POSTGRESQL", "REDIS", "Reading", "answered"]

POSTGRESQL, REDIS, KAFKA = "PostgreSQL", "Redis", "Kafka"
Value_co = TypeVar("Value_co", covariant=True)
Said = TypeVar("Said")
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value_co]):
    """The last thing that a server said; moments of time.monotonic().

    read_at  when it was said; error: why there is nothing newer, empty while it answers
    since    since when it has not answered, or been asked for the first time
    """

    value: Value_co | None = None
    read_at: float = _NEVER
    error: str = ""
    since: float = _NEVER

    @classmethod
    def begun(cls) -> Reading[Value_co]:
        """Nothing yet: it is asked from now on."""
        return cls(since=time.monotonic())

    @property
    def age(self) -> float:
        """Seconds; infinite where nothing was ever said."""
        return time.monotonic() - self.read_at

    @property
    def silent(self) -> float:
        """Seconds for which there has been nothing new."""
        return time.monotonic() - max(self.read_at, self.since)

    def failed(self, error: str) -> Reading[Value_co]:
        """It has not answered; what it said last is kept."""
        since = time.monotonic() if self.since == _NEVER else self.since
        return Reading(self.value, self.read_at, error, since)


def answered(value: Said) -> Reading[Said]:
    """A server has said this now."""
    return Reading(value, read_at=time.monotonic())
