"""Leases on rows: who works on what, for how long, and how late writes are kept out
(guarantees.md#r18).

A table has an id, a time from which a row may be claimed (while somebody holds the row, the end of the
lease), and a number that rises each time somebody begins with it. A lease names that number: a worker
whose row was taken by another finds a higher one, and writes nothing. The holder counts by its own
monotonic clock from before the claim, so it always believes to have less time than it has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outbox.database.ask import rows_of

__all__ = ["Lease", "Leases"]


@dataclass(frozen=True, slots=True)
class Lease:
    """One row, held. `until` is of time.monotonic() in the process that claimed it."""

    id: int
    number: int
    until: float = 0.0

    def still_mine_for(self, seconds: float) -> bool:
        """Whether `seconds` of work, begun now, end within the lease."""
        return time.monotonic() + seconds <= self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """A table that is worked through by lease. Names and conditions are SQL of the code.

    due     column: from when on a row may be claimed
    number  column: rises whenever somebody begins with the row
    open    condition that a row meets as long as there is something to do about it
    """

    table: str
    due: str
    number: str
    open: str

    def claim(
        self,
        limit: int,
        *,
        seconds: float,
        where: str = "true",
        parameters: Sequence[Any] = (),
        begin: bool = True,
    ) -> list[Lease]:
        """Take up to `limit` rows that are due, the longest waiting first, for `seconds`.

        Rows that another transaction holds are skipped. A lease that is over is one that is due:
        its row is taken over. `begin`: raise the number; without it the work counts as begun when
        `renew` says so, and until then a second claim gets the same number.
        """
        started = time.monotonic()
        # MATERIALIZED, so that no plan runs the inner statement again for each row and takes
        # more than it was asked for.
        rows = rows_of(
            f"""
            WITH free AS MATERIALIZED (
                SELECT id FROM {self.table}
                WHERE {self.open} AND {self.due} <= clock_timestamp() AND {where}
                ORDER BY {self.due} LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE {self.table} AS taken
            SET {self.due} = clock_timestamp() + make_interval(secs => %s),
                {self.number} = taken.{self.number} + %s
            FROM free WHERE taken.id = free.id
            RETURNING taken.id, taken.{self.number}
            """,
            (*parameters, limit, seconds, int(begin)),
        )
        return [Lease(id_, number, started + seconds) for id_, number in sorted(rows)]

    def renew(self, leases: Sequence[Lease], *, seconds: float, begin: bool = False) -> list[Lease]:
        """Hold those that are still mine for `seconds` from now; returns them, with what is new.

        `begin`: raise the number, so that an older copy of the claim begins nothing.
        """
        started = time.monotonic()
        rows = self._update(
            leases,
            f"{self.due} = clock_timestamp() + make_interval(secs => %s),"
            f" {self.number} = held.{self.number} + %s",
            (seconds, int(begin)),
        )
        return [Lease(id_, number, started + seconds) for id_, number in rows]

    def give_back(self, leases: Sequence[Lease], *, after: float = 0.0) -> list[int]:
        """Let others claim those that are still mine, `after` seconds from now; returns their ids."""
        rows = self._update(
            leases, f"{self.due} = clock_timestamp() + make_interval(secs => %s)", (after,)
        )
        return [id_ for id_, _ in rows]

    def write_back(
        self, leases: Sequence[Lease], assignments: str, parameters: Sequence[Any] = ()
    ) -> list[int]:
        """Write the outcome to those rows that are still mine; returns their ids.

        `assignments` is the SET clause; what it sets must end the row's condition or its due time.
        """
        return [id_ for id_, _ in self._update(leases, assignments, parameters)]

    def _update(
        self, leases: Sequence[Lease], assignments: str, parameters: Sequence[Any]
    ) -> list[tuple[int, int]]:
        """Only where the number is still the lease's. Sorted by id, so that two never deadlock."""
        if not leases:
            return []
        held = sorted(leases, key=lambda lease: lease.id)
        rows = rows_of(
            f"""
            WITH mine AS MATERIALIZED (
                SELECT {self.table}.id FROM {self.table}
                JOIN unnest(%s::bigint[], %s::bigint[]) AS lease (lease_id, lease_number)
                  ON lease_id = {self.table}.id AND lease_number = {self.table}.{self.number}
                WHERE {self.open}
                ORDER BY {self.table}.id FOR UPDATE OF {self.table}
            )
            UPDATE {self.table} AS held SET {assignments}
            FROM mine WHERE held.id = mine.id
            RETURNING held.id, held.{self.number}
            """,
            ([each.id for each in held], [each.number for each in held], *parameters),
        )
        return sorted(rows)
