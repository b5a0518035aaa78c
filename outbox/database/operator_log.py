"""The log of operators: a row for each action, with who did it, when, on what, why, and how
many. It is written in the transaction of the action; what takes longer has a row that is still open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from outbox.database.ask import changed_by, row_of, rows_of

__all__ = [
    "DoneAlready",
    "Entry",
    "add",
    "begin",
    "end",
    "entry",
    "newest",
    "note",
    "purge",
    "reason_in",
    "tell",
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


class Entry(NamedTuple):
    """One row.

    asked     how many things it is about; None: they are not counted
    done      how many of them it has done; skipped: how many it has left as they are
    ended_at  None: it is under way
    outcome   what is to be said of its end
    """

    id: int
    at: datetime
    by: str
    what: str
    subject: str
    why: str
    asked: int | None
    done: int
    skipped: int
    ended_at: datetime | None
    outcome: str


_COLUMNS = "id, at, by, what, subject, why, asked, done, skipped, ended_at, outcome"


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
    row = {"asked": done, "done": done, "once": once, "outcome": _text(outcome)}
    return _insert(what, subject, by, why, row)


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
    """Write down what has begun and will count how far it is; as `note`. `run`: what somebody needs
    who goes on with it, JSON values."""
    text = msgspec.json.encode(run).decode() if run is not None else None
    row = {"asked": asked, "once": once, "run": text, "ended": False}
    return _insert(what, subject, by, why, row)


def _insert(what: str, subject: str, by: str, why: str, columns: Mapping[str, Any]) -> int:
    default = {"done": 0, "outcome": "", "run": None, "ended": True}
    texts = {"what": what, "subject": _text(subject), "by": _text(by), "why": _text(why)}
    row = row_of(
        """
        INSERT INTO operator_action
            (by, what, subject, why, asked, done, once, outcome, run, ended_at)
        VALUES (%(by)s, %(what)s, %(subject)s, %(why)s, %(asked)s::int, %(done)s::int,
                %(once)s::uuid, %(outcome)s, %(run)s::jsonb,
                CASE WHEN %(ended)s THEN clock_timestamp() END)
        ON CONFLICT (once) DO NOTHING RETURNING id
        """,
        default | texts | dict(columns),
    )
    if row is None:
        raise DoneAlready(DoneAlready.__doc__)
    return int(row[0])


def _text(text: str) -> str:
    """PostgreSQL's text holds no NUL."""
    return text.replace("\x00", "")[:TEXT_LENGTH]


def add(entry_id: int, *, done: int = 0, skipped: int = 0) -> None:
    """So many more; in the transaction that has done them."""
    changed_by(
        "UPDATE operator_action SET done = done + %s, skipped = skipped + %s WHERE id = %s",
        (done, skipped, entry_id),
    )


def tell(entry_id: int, outcome: str) -> None:
    """Why it does not get on, while it is under way."""
    changed_by(
        "UPDATE operator_action SET outcome = %s"
        " WHERE id = %s AND ended_at IS NULL AND outcome <> %s",
        (_text(outcome), entry_id, _text(outcome)),
    )


def end(entry_id: int, outcome: str = "") -> bool:
    """It is over; whether it was under way until now."""
    ended = changed_by(
        "UPDATE operator_action SET ended_at = clock_timestamp(), outcome = %s"
        " WHERE id = %s AND ended_at IS NULL",
        (_text(outcome), entry_id),
    )
    return bool(ended)


def newest(limit: int) -> Sequence[Entry]:
    """The newest rows, and after them older ones that are still in progress."""
    rows = rows_of(
        f"""
        SELECT {_COLUMNS} FROM (
            (SELECT {_COLUMNS} FROM operator_action ORDER BY id DESC LIMIT %s)
            UNION
            (SELECT {_COLUMNS} FROM operator_action
             WHERE ended_at IS NULL AND run IS NOT NULL ORDER BY id LIMIT %s)
        ) AS found ORDER BY id DESC
        """,
        (limit, limit),
    )
    return [Entry(*row) for row in rows]


def entry(entry_id: int) -> Entry | None:
    row = row_of(f"SELECT {_COLUMNS} FROM operator_action WHERE id = %s", (entry_id,))
    return Entry(*row) if row else None


def under(once: UUID) -> int | None:
    """The id of the row that a form has written."""
    row = row_of("SELECT id FROM operator_action WHERE once = %s::uuid", (once,))
    return int(row[0]) if row else None


def purge() -> int:
    """Let go of what began more than a year ago, oldest first; how many."""
    return changed_by(
        """
        DELETE FROM operator_action WHERE id IN (
            SELECT id FROM (SELECT id, at FROM operator_action ORDER BY id LIMIT %s) AS oldest
            WHERE at < clock_timestamp() - make_interval(days => %s))
        """,
        (_CHUNK, KEPT_DAYS),
    )
