"""What an action of the page is: a look at what it would do, and the doing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

__all__ = ["RATES", "Action", "Asked", "NoSuch", "NotNow", "Preview"]

RATES = (1, 10, 50, 200)  # letters a second


class NoSuch(LookupError):
    """There is nothing of this name to act on."""


class NotNow(RuntimeError):
    """It cannot be done as things stand; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action would do. `sentence`: what comes of it; `columns` and `rows`: what it is about, as
    it stands; `nothing`: why there is nothing to do; `permission`: where another than the action's."""

    title: str
    sentence: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    notes: Sequence[str] = ()
    rates: Sequence[int] = ()
    nothing: str = ""
    permission: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who has confirmed it, and why. `once`: of the form."""

    on: Sequence[str]
    by: str
    why: str
    once: UUID
    rate: int = RATES[0]


@dataclass(frozen=True, slots=True)
class Action:
    """`do` raises NotNow, DoneAlready, NoSuch; so may `preview` the last."""

    verb: str
    permission: str
    preview: Callable[[Sequence[str]], Preview]
    do: Callable[[Asked], object]
