"""One fixed rate: what was answered and how soon, and what an order has cost the machine.

Processor time is the machine's, by the kernel's own count, less what the generator took and less what the
machine takes while nothing happens; beside it stands the same of the stack's processes alone, which also says
something on a machine that others use. It is counted from the first request until `after` seconds behind the
last answer, when folds, audits and gauges have come round, and then goes on while as many events are purged
as came, dead rows are vacuumed and dirty pages are written: else an order would look cheap because its work
was still to come. The benchmark's own questions are asked while nothing counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psutil
import structlog
from django.db import connection

from devtools.benchmarks.cpu import seconds_of_stack
from devtools.localstack import LocalStack
from devtools.testing import measure
from outbox.conf import Retention
from outbox.upkeep.purge import purge

__all__ = ["Found", "Generator", "Rates", "tidy_up"]

SETTLES_WITHIN = 120.0
POST_P99_MS = 100.0
FIGURES_P99_MS = 500.0
_AT_ONCE = Retention(receipts=24, outbox=0, dead_letters=24)

log = structlog.get_logger("devtools.benchmarks")


class Generator:
    """The load in its own process."""

    def __init__(self, url: str, rate: float, seconds: float) -> None:
        self._program = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "devtools.benchmarks.whole_path.generator"),
                *(url, str(rate), str(seconds)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> dict[str, Any]:
        """Send nothing more; what came back."""
        self._program.send_signal(signal.SIGTERM)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Wait for the last answer. Raises ChildProcessError if the load came to no end."""
        said, _ = self._program.communicate()
        if self._program.returncode:
            raise ChildProcessError("the load generator has failed; it says why above")
        found: dict[str, Any] = json.loads(said)
        return found


@dataclass(frozen=True, slots=True)
class _Cpu:
    """Seconds of processor: of the machine less its generators, and of each process of the stack."""

    machine: float
    processes: Mapping[str, float]

    @classmethod
    def now(cls, stack: LocalStack) -> _Cpu:
        """So far. Only a generator that has ended is taken off."""
        times, ended = psutil.cpu_times(), os.times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        return cls(busy - ended.children_user - ended.children_system, seconds_of_stack(stack))

    @property
    def stack(self) -> float:
        """Of all processes together, with this one, which purges."""
        return sum(self.processes.values())

    def __sub__(self, other: _Cpu) -> _Cpu:
        return self._with(other, lambda one, two: one - two)

    def __add__(self, other: _Cpu) -> _Cpu:
        return self._with(other, lambda one, two: one + two)

    def times(self, factor: float) -> _Cpu:
        return self._with(self, lambda one, _: one * factor)

    def _with(self, other: _Cpu, join: Callable[[float, float], float]) -> _Cpu:
        processes = {
            name: join(spent, other.processes.get(name, 0.0))
            for name, spent in self.processes.items()
        }
        return _Cpu(join(self.machine, other.machine), processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One rate. An order's processor time, idle time taken off: `cpu_ms` of the machine, `stack_ms` of the
    stack's processes, `by_process` of each. `wal_bytes` and `rows` (inserted, updated, deleted, before
    the purge): an order."""

    rate: float
    answered: float
    failed: int
    lost: int
    post_p50: float
    post_p99: float
    kafka_p50: float
    figures_p50: float
    figures_p99: float
    figures_max: float
    cpu_ms: float
    stack_ms: float
    by_process: Mapping[str, float]
    generator_us: float
    wal_bytes: float
    rows: float

    @property
    def holds(self) -> bool:
        """Whether this rate can be kept up."""
        return (
            not self.failed
            and not self.lost
            and self.answered >= 0.99 * self.rate
            and self.post_p99 <= POST_P99_MS
            and self.figures_p99 <= FIGURES_P99_MS
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds}


class Rates:
    """Measures rates on a running stack; `idle` is what a second takes while nothing happens."""

    def __init__(self, stack: LocalStack, *, seconds: float, after: float) -> None:
        self._stack = stack
        self._seconds = seconds
        self._after = after
        self.idle = _Cpu(0.0, {})

    def warm_up(self) -> None:
        Generator(self._stack.base_url, 300, 3).result()
        measure.settle(SETTLES_WITHIN)

    def measure_idle(self, seconds: float) -> None:
        tidy_up()
        before = _Cpu.now(self._stack)
        time.sleep(seconds)
        self.idle = (_Cpu.now(self._stack) - before).times(1 / seconds)

    def at(self, rate: float) -> Found:
        """One rate from the first request to the last purged row."""
        tidy_up()
        before, wal, rows = _Cpu.now(self._stack), _wal(), _rows()
        since, begin = measure.database_now(), time.perf_counter()
        sent = Generator(self._stack.base_url, rate, self._seconds).result()
        time.sleep(self._after)
        spent, counted = _Cpu.now(self._stack) - before, time.perf_counter() - begin
        wal, until = _wal() - wal, measure.database_now()
        settled = measure.settle(SETTLES_WITHIN)
        kafka = measure.commit_to_kafka(since, until)
        p50, p99, most = _to_figures(since, until)
        rows = _rows() - rows
        again, begin = _Cpu.now(self._stack), time.perf_counter()
        events = purge(_AT_ONCE, seconds=SETTLES_WITHIN).events
        tidy_up()
        spent += _Cpu.now(self._stack) - again
        counted += time.perf_counter() - begin
        orders = max(1, sent["answered"])
        of_one = (spent - self.idle.times(counted)).times(1000 / orders)
        if events < orders:
            log.error("too_little_purged", events=events, orders=orders)
        return Found(
            rate=rate,
            answered=sent["answered"] / sent["seconds"],
            failed=sent["failed"],
            lost=settled.heard - settled.applied + settled.events - settled.published,
            post_p50=sent["p50_ms"],
            post_p99=sent["p99_ms"],
            kafka_p50=kafka.p50,
            figures_p50=p50,
            figures_p99=p99,
            figures_max=most,
            cpu_ms=of_one.machine,
            stack_ms=of_one.stack,
            by_process=of_one.processes,
            generator_us=sent["cpu_us"],
            wal_bytes=wal / orders,
            rows=rows / orders,
        )

    def ceiling(self, first: float, factor: float) -> list[Found]:
        """Rates from `first` on, each `factor` times the last, up to the first that cannot be kept up;
        then one halfway between."""
        found = [self.at(first)]
        while found[-1].holds:
            found.append(self.at(round(found[-1].rate * factor, -1)))
        if len(found) > 1:
            found.append(self.at(round((found[-2].rate + found[-1].rate) / 2, -1)))
        return found


def tidy_up() -> None:
    """What autovacuum and a checkpoint would do sooner or later, done now."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
        cursor.execute("CHECKPOINT")


def _to_figures(since: datetime, until: datetime) -> tuple[float, float, float]:
    """Milliseconds from the outbox row to the receipt of `record_sales`: median, 99th of 100, longest."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT percentile_disc(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY
                       extract(epoch FROM receipt.applied_at - event.created_at)::float8 * 1000)
            FROM event_outbox event JOIN inbox_receipt receipt USING (event_id)
            WHERE event.created_at BETWEEN %s AND %s AND receipt.handler = 'record_sales'
            """,
            (since, until),
        )
        found = cursor.fetchone()[0] or [float("nan")] * 3
    return tuple(found)


def _wal() -> int:
    return _number("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")


def _rows() -> int:
    return _number("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables")


def _number(sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[0])
