"""Reads in several steps: copies in a Redis that may be away, and PostgreSQL.

A read is a generator of steps, so that view and hot path share it: the view sends each step on
Django's connection (`run`), the hot path on its session (eventsite/web/hot_paths/endpoints.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import msgspec

from outbox.database.round_trips import RoundTrip, Statement, drive, send

__all__ = ["Ask", "Command", "LookupSteps", "run"]

Result = TypeVar("Result")
Command = tuple[str | int | bytes, ...]  # of Redis, with its arguments


class Ask(msgspec.Struct, frozen=True):
    """One step: statements that only read, each with a snapshot of its own, or commands.

    It is sent the rows of each statement; or the reply to each command, which is an exception where
    Redis has refused it, and None in place of all replies where Redis is unavailable. A command may have
    been done all the same.
    """

    statements: Sequence[Statement] = ()
    commands: Sequence[Command] = ()


LookupSteps = Generator[Ask, Any, Result]


def run(
    steps: LookupSteps[Result], *, redis: Callable[[Sequence[Command]], Sequence[Any] | None]
) -> Result:
    """All steps, one after the other, on Django's connection; then the result."""
    return drive(
        steps,
        lambda ask: redis(ask.commands) if ask.commands else send(RoundTrip(ask.statements)),
    )
