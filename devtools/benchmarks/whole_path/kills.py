"""SIGKILL under load: how long the longest event then takes from its commit to its effect."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from devtools.benchmarks.report import BenchFigure
from devtools.benchmarks.whole_path.rates import SETTLES_WITHIN, Generator
from devtools.localstack import LocalStack
from devtools.testing import measure
from outbox.topics import CANARY_TYPE

__all__ = ["PROCESSES", "Kills"]

# Process -> seconds: the median and the worst that is to be reached.
PROCESSES: Mapping[str, tuple[float, float]] = {
    "worker-effects": (3.0, 6.0),
    "worker-outbox": (3.0, 6.0),
    "bridge": (8.0, 8.0),  # the group's session timeout (6 s) and two
}
CALM_SECONDS = 1.5  # before each: what the last one left has gone


@dataclass(frozen=True, slots=True)
class _Kill:
    """Seconds: the longest commit → effect, and until the process that was started again was ready."""

    longest: float
    start: float


class Kills:
    """Kills one process a role again and again on a running stack, and starts it again at once."""

    def __init__(self, stack: LocalStack, *, times: int, rate: float) -> None:
        self._stack = stack
        self._times = times
        self._rate = rate

    def of(self, name: str) -> list[BenchFigure]:
        """The longest of each kill: median and worst, and the process's own start beside it."""
        median, worst = PROCESSES[name]
        with self._load():
            kills = [self._kill(name) for _ in range(self._times)]
        longest = sorted(kill.longest for kill in kills)
        starts = [kill.start for kill in kills]
        each = ", ".join(f"{seconds:.1f}" for seconds in longest)
        return [
            BenchFigure(
                name=f"SIGKILL of {name}: longest commit → effect, median",
                value=statistics.median(longest),
                unit="s",
                at_most=median,
                note=f"{each}; ready again after {statistics.median(starts):.1f} s",
            ),
            BenchFigure(
                name=f"SIGKILL of {name}: the same, worst",
                value=longest[-1],
                unit="s",
                at_most=worst,
            ),
        ]

    @contextmanager
    def _load(self) -> Iterator[None]:
        """As long as the kills take."""
        generator = Generator(self._stack.base_url, self._rate, 24 * 3600)
        try:
            time.sleep(2 * CALM_SECONDS)
            yield
        finally:
            generator.end()

    def _kill(self, name: str) -> _Kill:
        unit = self._stack.process(name)
        time.sleep(CALM_SECONDS)
        since, begin = measure.database_now(), time.perf_counter()
        unit.kill()
        unit.start()
        unit.wait_ready()
        start = time.perf_counter() - begin
        self._wait_applied(measure.database_now())
        return _Kill(_longest(since - timedelta(seconds=CALM_SECONDS)), start)

    @staticmethod
    def _wait_applied(until: datetime) -> None:
        """Until everything that was committed by then has its effects."""
        give_up = time.monotonic() + SETTLES_WITHIN
        while _without_effect(until):
            if time.monotonic() > give_up:
                raise TimeoutError(f"not applied after {SETTLES_WITHIN:.0f} s")
            time.sleep(0.1)


# The two events of a simple order, and the handler of each.
_BOTH = ("record_sales", "record_processed_events")
_TOPICS = ("order-events", "orders.created")


def _without_effect(until: datetime) -> bool:
    return bool(
        _rows(
            """
            SELECT 1 FROM event_outbox event
            WHERE event.created_at BETWEEN %s AND %s AND topic = ANY(%s) AND type <> %s
              AND NOT EXISTS (SELECT FROM inbox_receipt receipt WHERE receipt.event_id = event.event_id
                              AND receipt.handler = ANY(%s))
            LIMIT 1
            """,
            (until - timedelta(seconds=60), until, list(_TOPICS), CANARY_TYPE, list(_BOTH)),
        )
    )


def _longest(since: datetime) -> float:
    [(seconds,)] = _rows(
        """
        SELECT coalesce(max(extract(epoch FROM receipt.applied_at - event.created_at)), 0)::float8
        FROM event_outbox event JOIN inbox_receipt receipt USING (event_id)
        WHERE event.created_at >= %s AND receipt.handler = ANY(%s)
        """,
        (since, list(_BOTH)),
    )
    return float(seconds)


def _rows(sql: str, parameters: Sequence[Any]) -> list[tuple[float, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
