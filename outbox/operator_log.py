"""The log of operators: a row for each action, with who did it, when, on what, why, and how
many. It is written in the transaction of the action; what takes longer has a row that is still open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import F
from django.db.models.functions import Now

from outbox.models import CLOCK, OperatorAction

__all__ = [
    "DoneAlready",
    "add",
    "begin",
    "end",
    "entry",
    "explain",
    "newest",
    "note",
    "purge",
    "reason_in",
    "under",
]

KEPT_DAYS = 365
TEXT_LENGTH = 1000  # of why, and of what came of it
_CHUNK = 10_000
_REASON_LENGTH = 500


def reason_in(text: str) -> str:
    """The reason that somebody wrote into a form, as the log can keep it; empty if there is none."""
    return text.replace("\x00", "").strip()[:_REASON_LENGTH]


class DoneAlready(RuntimeError):
    """This form was sent before: what it asks for is done, or under way."""


def note(
    what: str,
    subject: str,
    *,
    by: str,
    why: str = "",
    done: int = 1,
    once: UUID | None = None,
    outcome: str = "",
) -> int:
    """Write down what this transaction does; the id of the row.

    `once`: of the form that asks for it. Raises DoneAlready if a row has it, so that nothing is done.
    """
    ended: dict[str, Any] = {"done": done, "outcome": _text(outcome), "ended_at": CLOCK}
    return _insert(what, subject, by, why, asked=done, once=once, **ended)


def begin(
    what: str,
    subject: str,
    *,
    by: str,
    why: str = "",
    asked: int | None = None,
    once: UUID | None = None,
    run: dict[str, Any] | None = None,
) -> int:
    """Write down an action that has begun and counts its progress; as `note`. `run`: the JSON values that
    the task needs to continue it."""
    return _insert(what, subject, by, why, asked=asked, once=once, run=run)


def _insert(
    what: str, subject: str, by: str, why: str, *, once: UUID | None, **columns: Any
) -> int:
    columns |= {"what": what, "subject": _text(subject), "by": _text(by), "why": _text(why)}
    if once is None:
        return OperatorAction.objects.create(**columns).id
    row, is_new = OperatorAction.objects.get_or_create(columns, once=once)
    if not is_new:
        raise DoneAlready(DoneAlready.__doc__)
    return row.id


def _text(text: str) -> str:
    """PostgreSQL's text holds no NUL."""
    return text.replace("\x00", "")[:TEXT_LENGTH]


def add(entry_id: int, *, done: int = 0, skipped: int = 0) -> None:
    """So many more; in the transaction that has done them."""
    row = OperatorAction.objects.filter(id=entry_id)
    row.update(done=F("done") + done, skipped=F("skipped") + skipped)


def explain(entry_id: int, outcome: str) -> None:
    """Write down why an action that is under way makes no progress."""
    row = OperatorAction.objects.filter(id=entry_id, ended_at=None)
    row.exclude(outcome=_text(outcome)).update(outcome=_text(outcome))


def end(entry_id: int, outcome: str = "") -> bool:
    """It is over; whether it was under way until now."""
    row = OperatorAction.objects.filter(id=entry_id, ended_at=None)
    return bool(row.update(ended_at=CLOCK, outcome=_text(outcome)))


def newest(limit: int) -> Sequence[OperatorAction]:
    """The newest rows, and after them older ones that are still in progress."""
    rows = OperatorAction.objects.order_by("-id")
    runs = OperatorAction.objects.filter(ended_at=None, run__isnull=False).order_by("id")
    return list(rows[:limit].union(runs[:limit]).order_by("-id"))


def entry(entry_id: int) -> OperatorAction | None:
    return OperatorAction.objects.filter(id=entry_id).first()


def under(once: UUID) -> int | None:
    """The id of the row that a form has written."""
    return OperatorAction.objects.filter(once=once).values_list("id", flat=True).first()


def purge() -> int:
    """Delete what began more than a year ago, oldest first; returns the number of rows."""
    oldest = OperatorAction.objects.order_by("id")[:_CHUNK]
    old = OperatorAction.objects.filter(id__in=oldest, at__lt=Now() - timedelta(days=KEPT_DAYS))
    return old.delete()[0]
