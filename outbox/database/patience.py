"""How long work waits for PostgreSQL, whichever process does it.

A server that was stopped still acknowledges TCP, and its own timeouts stand as still as it does: only
the side that waits can give up. The code that begins a piece of work sets here how long it may wait;
the database backend and the hot paths close a connection that has not answered in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import psycopg

from outbox import metrics

__all__ = ["Unanswered", "begin", "end", "give_up", "is_silent", "left", "note_answer", "within"]

_FOREVER = float("inf")
_SILENT_SECONDS = 5.0  # after it was given up last

_until: ContextVar[float] = ContextVar("patience_until", default=_FOREVER)  # on time.monotonic()
_each: ContextVar[float] = ContextVar("patience_each", default=_FOREVER)
_given_up_at = -_FOREVER  # in this process


class Unanswered(psycopg.OperationalError):
    """PostgreSQL did not answer in the time there was; the connection was closed. What it was asked
    may still be done, also later."""


def left() -> float | None:
    """Seconds that the next wait may last, not above 0 if the time is over; None: no bound."""
    until, each = _until.get(), _each.get()
    if until == each == _FOREVER:
        return None
    return min(until - time.monotonic(), each)


@contextmanager
def within(seconds: float = _FOREVER, *, each: float = _FOREVER) -> Iterator[None]:
    """Work that waits `seconds` at most from now on, and for each answer at most `each` seconds;
    a bound around it holds as well. Threads begin without one, unless they are given the context."""
    outer = _until.set(min(_until.get(), time.monotonic() + seconds))
    outer_each = _each.set(min(_each.get(), each))
    try:
        yield
    finally:
        _each.reset(outer_each)
        _until.reset(outer)


def begin(seconds: float, *, each: float) -> None:
    """The same for work whose begin and end are signals: until `end`."""
    _until.set(time.monotonic() + seconds)
    _each.set(each)


def end() -> None:
    _until.set(_FOREVER)
    _each.set(_FOREVER)


def give_up(waited_for: str) -> Unanswered:
    """Count a connection that was given up; the error to raise. `waited_for`: "connect" | "answer"."""
    global _given_up_at
    _given_up_at = time.monotonic()
    metrics.DATABASE_GIVEN_UP.labels(waited_for).inc()
    return Unanswered("The database does not answer.")


def note_answer() -> None:
    global _given_up_at
    _given_up_at = -_FOREVER


def is_silent() -> bool:
    """Whether a connection of this process was given up a moment ago, and none answered since."""
    return time.monotonic() - _given_up_at < _SILENT_SECONDS
