"""The last day: a small row per minute, and the actions and migrations of that time.

PostgreSQL keeps the rows, so the charts need no other server and every web process shows the same ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.db import transaction

from outbox import operator_log
from outbox.database.ask import changed_by, row_of, rows_of
from outbox.database.planner import plan_without
from outbox.models import OperatorAction

__all__ = [
    "KEPT_HOURS",
    "NOTHING",
    "MinuteFigures",
    "Past",
    "PastReader",
    "Row",
    "last_alarms",
    "purge",
    "unwritten_minute",
    "write",
]

KEPT_HOURS = 25
ACTIONS = 200  # of one day, the newest
READ_AGAIN_SECONDS = 20.0
# The row of a minute is here at most so long after the minute has begun, unless nobody writes it: beat starts
# the task every 20 s, and this is read as often.
LATE_SECONDS = 120.0
_ROWS = """
    SELECT at, told FROM operations_minute
    WHERE at > statement_timestamp() - make_interval(hours => %s) ORDER BY at DESC LIMIT %s
"""
_MIGRATIONS = """
    SELECT applied, app || ' ' || name FROM (
        SELECT app, name, applied FROM django_migrations ORDER BY id DESC LIMIT 100) AS newest
    WHERE applied > statement_timestamp() - make_interval(hours => %s) ORDER BY applied
"""
_LAST = """
    SELECT told, extract(epoch FROM clock_timestamp() - at)::float
    FROM operations_minute ORDER BY at DESC LIMIT 1
"""
# The current minute, if it has no row yet.
_NOT_WRITTEN = """
    SELECT minute FROM date_trunc('minute', clock_timestamp()) AS minute
    WHERE NOT EXISTS (SELECT FROM operations_minute WHERE at = minute)
"""


class MinuteFigures(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The content of one minute's row.

    series    name -> value, for the charts; unknown values are left out
    alarms    "<hop>/<alarm>" -> seconds for which its condition was met
    on        names of the alarms that were on
    red       those of them that were critical; older rows have only these
    releases  release and build of the processes that ran
    """

    series: dict[str, float] = {}
    alarms: dict[str, float] = {}
    on: tuple[str, ...] = ()
    red: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(MinuteFigures).decode


@dataclass(frozen=True, slots=True)
class Row:
    """One minute."""

    at: datetime
    figures: MinuteFigures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """The last day, oldest first. `migrations`: pairs of time and name; `clock`: PostgreSQL's at `read_at`, which
    is a moment of time.monotonic()."""

    rows: Sequence[Row] = ()
    actions: Sequence[OperatorAction] = ()
    migrations: Sequence[tuple[datetime, str]] = ()
    clock: datetime | None = None
    read_at: float = 0.0

    @property
    def late(self) -> float:
        """Seconds since the newest row, if the next one should be here; otherwise 0."""
        if not self.rows or self.clock is None:
            return 0.0
        since = (self._now(self.clock) - self.rows[-1].at).total_seconds()
        return since if since > LATE_SECONDS else 0.0

    @property
    def end(self) -> datetime | None:
        """Where the charts end: at the clock, which goes on while nobody writes or PostgreSQL is unavailable. The newest
        row is the end as long as the next one need not be here. None if there are no rows."""
        if self.late and self.clock is not None:
            return self._now(self.clock).replace(second=0, microsecond=0)
        return self.rows[-1].at if self.rows else None

    def _now(self, clock: datetime) -> datetime:
        """Of PostgreSQL, whose clock the rows are written by."""
        return clock + timedelta(seconds=time.monotonic() - self.read_at)


NOTHING = Past()


class PastReader:
    """Reads the past every twenty seconds; it changes once a minute. For use by one thread."""

    def __init__(self) -> None:
        self._read_at = -math.inf
        self._past = NOTHING

    def read(self) -> Past:
        """The past; the same object until it is read again."""
        if time.monotonic() - self._read_at > READ_AGAIN_SECONDS:
            self._past = _read()
            self._read_at = time.monotonic()
        return self._past


def _read() -> Past:
    with transaction.atomic():
        plan_without("seqscan", "bitmapscan", "sort")  # the newest, along their index
        newest = rows_of(_ROWS, (KEPT_HOURS, KEPT_HOURS * 60))
        rows = [Row(at, _decode(text)) for at, text in reversed(newest)]
    migrations = rows_of(_MIGRATIONS, (KEPT_HOURS,))
    since = rows[0].at if rows else None
    actions = [each for each in operator_log.newest(ACTIONS) if since and each.at >= since]
    return Past(
        rows=rows,
        actions=actions[::-1],
        migrations=migrations,
        clock=row_of("SELECT clock_timestamp()")[0],
        read_at=time.monotonic(),
    )


def last_alarms() -> tuple[Mapping[str, float], float]:
    """The alarms of the newest row and the seconds since then; without a row none, ever so long ago."""
    row = row_of(_LAST)
    return (_decode(row[0]).alarms, row[1]) if row else ({}, math.inf)


def unwritten_minute() -> datetime | None:
    """The current minute if it has no row, otherwise None."""
    row = row_of(_NOT_WRITTEN)
    return row[0] if row else None


def write(minute: datetime, figures: MinuteFigures) -> bool:
    """Write a minute's row if there is none. Returns whether it wrote one."""
    return bool(
        changed_by(
            "INSERT INTO operations_minute (at, told) VALUES (%s, %s::jsonb) ON CONFLICT DO NOTHING",
            (minute, msgspec.json.encode(figures).decode()),
        )
    )


def purge() -> int:
    """Delete rows that are older than a day and an hour. Returns how many."""
    return changed_by(
        "DELETE FROM operations_minute WHERE at < statement_timestamp() - make_interval(hours => %s)",
        (KEPT_HOURS,),
    )
