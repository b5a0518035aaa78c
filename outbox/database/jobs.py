"""What the jobs of the upkeep share: one at a time, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, InterfaceError

from outbox.database.ask import changed_by, row_of, rows_of

__all__ = ["ages", "move_mark", "note_done", "only_one", "read_mark"]

_LOCK_SPACE = 20_231  # of advisory locks, ours


@contextmanager
def only_one(job: str) -> Iterator[bool]:
    """Whether this session may do the job now: False while another does it (guarantees.md#r18).

    An advisory lock of the session, so that a job may commit as it goes; PostgreSQL gives it back
    when the process dies.
    """
    [mine] = row_of("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (_LOCK_SPACE, job))
    try:
        yield mine
    finally:
        if mine:
            # Of no use on a connection that is broken: then the lock went with it.
            with suppress(DatabaseError, InterfaceError):
                row_of("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_LOCK_SPACE, job))


def read_mark(name: str) -> int:
    """The id up to which a job has nothing left to do; 0 before its first run."""
    row = row_of("SELECT row_id FROM outbox_upkeep WHERE name = %s", (name,))
    return int(row[0]) if row else 0


def move_mark(name: str, *, old: int, new: int) -> bool:
    """Move a mark, unless it is no longer where it was read; whether it was moved."""
    changed_by(
        "INSERT INTO outbox_upkeep (name, row_id) VALUES (%s, 0) ON CONFLICT DO NOTHING", (name,)
    )
    moved = changed_by(
        "UPDATE outbox_upkeep SET row_id = %s WHERE name = %s AND row_id = %s", (new, name, old)
    )
    return bool(moved)


def note_done(name: str) -> None:
    changed_by(
        "INSERT INTO outbox_upkeep (name) VALUES (%s)"
        " ON CONFLICT (name) DO UPDATE SET done_at = clock_timestamp()",
        (name,),
    )


def ages() -> dict[str, float]:
    """Seconds since each job was last done, by name."""
    sql = "SELECT name, extract(epoch FROM clock_timestamp() - done_at)::float FROM outbox_upkeep"
    return dict(rows_of(sql))
