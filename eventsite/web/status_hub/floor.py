"""Where the rows without a number begin, so that a look need not pass what was numbered before: the
floors of outbox/lanes/floors.py for a status log. An id becomes a floor when every transaction that
could have drawn a lower one has ended, and a look that began after that has left nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from outbox.database.round_trips import Statement
from restapi.status_log import StatusLog

__all__ = ["Floor"]

LOOKS_EVERY = 5.0  # seconds
SWEEPS_EVERY = (
    60.0  # a look without a floor: for rows that somebody has set back, ids that started again
)


class Floor:
    """What one process remembers. Times are of one monotonic clock."""

    def __init__(self, log: StatusLog) -> None:
        self._table = log.table
        self._floor = 0
        self._ceiling = 0  # the last id that was drawn; 0: none is waited for
        self._writers: frozenset[str] = frozenset()  # that may still commit it or a lower one
        self._ended = False  # none of them is left
        self._next_look = self._next_sweep = 0.0

    def begin(self, now: float) -> int:
        """The id from which a look that begins now looks for rows."""
        if now < self._next_sweep:
            return self._floor
        self._next_sweep = now + SWEEPS_EVERY
        return 0

    def forget(self) -> None:
        """The log is another one."""
        self._floor = self._ceiling = 0
        self._ended = False

    def note_look(self, *, left_nothing: bool) -> None:
        """A look has ended: it has numbered all that was committed, or not."""
        if self._ended and left_nothing:
            self._floor = max(self._floor, self._ceiling + 1)
            self._ceiling, self._ended = 0, False

    def questions(self, now: float) -> Sequence[Statement]:
        """The statement at the end of a look, if it is time: the last id that was given, then
        the open writers of the table. In this order, so that a writer with a lower id is in the
        list or has ended."""
        if now < self._next_look:
            return ()
        self._next_look = now + LOOKS_EVERY
        return (
            (
                "SELECT coalesce(pg_sequence_last_value("
                "pg_get_serial_sequence(%s::text, 'id')::regclass), 0)",
                (self._table,),
            ),
            (
                "SELECT virtualtransaction FROM pg_locks"
                " WHERE locktype = 'relation' AND relation = %s::text::regclass"
                " AND mode = 'RowExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid()"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (self._table,),
            ),
        )

    def note_answers(self, last_id: int, writers: Collection[str]) -> None:
        if self._ceiling and not self._ended:
            self._ended = self._writers.isdisjoint(writers)
        elif not self._ceiling:
            self._ceiling, self._writers = last_id, frozenset(writers)
