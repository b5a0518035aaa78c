"""A server's last answer, and when it came."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import redis
from django.db import DatabaseError, InterfaceError

from outbox.kafka.admin import KafkaUnavailable
from outbox.kafka.reasons import words_of

__all__ = ["KAFKA", "POSTGRESQL", "REDIS", "Reading", "answered", "ask_again", "reason_of"]

POSTGRESQL, REDIS, KAFKA = "PostgreSQL", "Redis", "Kafka"
Value_co = TypeVar("Value_co", covariant=True)
Said = TypeVar("Said")
AWAY = (DatabaseError, InterfaceError, redis.RedisError, KafkaUnavailable, OSError)
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value_co]):
    """The last answer of a server; moments are those of time.monotonic().

    read_at  when it came
    error    why there is no newer one; empty while the server answers
    since    when the server stopped answering, or was asked for the first time
    """

    value: Value_co | None = None
    read_at: float = _NEVER
    error: str = ""
    since: float = _NEVER

    @classmethod
    def begun(cls) -> Reading[Value_co]:
        """A reading without an answer, of a server that is asked from now on."""
        return cls(since=time.monotonic())

    @property
    def age(self) -> float:
        """Seconds since the last answer; infinite if there was none."""
        return time.monotonic() - self.read_at

    @property
    def silent(self) -> float:
        """Seconds without a new answer."""
        return time.monotonic() - max(self.read_at, self.since)

    def older(self, seconds: float, why: str) -> Reading[Value_co]:
        """The same for a number that was already `seconds` old when the server sent it. `why`: the reason that
        there is no newer one, if the server answers."""
        return Reading(self.value, self.read_at - seconds, self.error or why, self.since)

    def failed(self, error: str) -> Reading[Value_co]:
        """The same reading after a call that failed: it keeps the last answer."""
        since = time.monotonic() if self.since == _NEVER else self.since
        return Reading(self.value, self.read_at, error, since)


def reason_of(error: Exception) -> str:
    """The first line of an error; its kind where it has no text."""
    return (words_of(error).strip().splitlines() or [type(error).__name__])[0]


def answered(value: Said) -> Reading[Said]:
    """The reading of a server that has just answered this."""
    return Reading(value, read_at=time.monotonic())


def ask_again(ask: Callable[[], Said], before: Reading[Said]) -> Reading[Said]:
    """What the server says now; if it does not answer, the reading before with the reason."""
    try:
        return answered(ask())
    except AWAY as error:
        return before.failed(reason_of(error))
