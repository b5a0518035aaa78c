"""An action of the page: a preview of what it would do, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid4

__all__ = ["RATES", "Action", "ActionRequest", "NoSuch", "NotNow", "Preview", "existing"]

RATES = (1, 10, 50, 200)  # letters a second
Thing = TypeVar("Thing")


class NoSuch(LookupError):
    """The thing to act on does not exist. The message is shown to the operator."""


def existing(found: Thing | None, otherwise: str) -> Thing:
    """What was found. Raises NoSuch with the message `otherwise`."""
    if found is None:
        raise NoSuch(otherwise)
    return found


class NotNow(RuntimeError):
    """The action cannot be done now, and nothing was changed. The message is shown to the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action would do.

    sentence       what follows from it
    columns, rows  the things that it acts on, as they are now
    nothing        why there is nothing to do; empty if there is something
    permission     one that is needed besides the action's own; empty if there is none
    """

    title: str
    sentence: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    notes: Sequence[str] = ()
    rates: Sequence[int] = ()
    nothing: str = ""
    permission: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """A confirmed action: who asks for it and why. `once` is the number of the form."""

    on: Sequence[str] = ()
    by: str
    why: str
    once: UUID = field(default_factory=uuid4)
    rate: int = RATES[0]


@dataclass(frozen=True, slots=True)
class Action:
    """`do` raises NotNow, DoneAlready or NoSuch; `preview` raises NotNow or NoSuch; those of the relay also raise
    Unavailable."""

    verb: str
    permission: str
    preview: Callable[[Sequence[str]], Preview]
    do: Callable[[ActionRequest], object]
