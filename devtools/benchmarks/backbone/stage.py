"""The stack under measurement: which of our processes run, and what the tables say."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psutil
from django.db import connection

from devtools.localstack import PLAN, LocalStack
from outbox.models import OutboxEvent

__all__ = ["Moments", "Stage"]

HANDLER = "record_sales"
# A line of the embedded server's log: its prefix ends in the application's name.
_STATEMENT = re.compile(rb"\] (\S+) LOG:  (?:statement|execute)")
OURS = PLAN.pipeline


@dataclass(frozen=True, slots=True)
class Moments:
    """When the first event of a span was published, and when the first and the last were applied."""

    events: int
    published_first: datetime | None
    applied_first: datetime | None
    applied_last: datetime | None


@dataclass(frozen=True, slots=True)
class Stage:
    """Handles on the running stack."""

    stack: LocalStack

    @property
    def database_url(self) -> str:
        return self.stack.env["DATABASE_URL"]

    @property
    def brokers(self) -> str:
        return self.stack.env["KAFKA_BOOTSTRAP_SERVERS"]

    def start(self, *names: str) -> None:
        """Start processes and wait until they are ready."""
        for name in names:
            self.stack.process(name).start()
        for name in names:
            self.stack.process(name).wait_ready()

    def stop(self, *names: str) -> None:
        """Stop processes, in the order given."""
        for name in names:
            self.stack.process(name).stop()

    def only(self, *names: str) -> None:
        """Let exactly these run."""
        self.stop(*(name for name in OURS if name not in names))
        self.start(*names)

    def newest_id(self) -> int:
        """Id of the newest outbox row; spans of a measurement start behind it."""
        return int(_value("SELECT coalesce(max(id), 0) FROM event_outbox"))

    def moments(self, after_id: int) -> Moments:
        """What happened to the events behind `after_id`."""
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT count(*), min(published_at), min(applied_at), max(applied_at)
                FROM event_outbox event
                LEFT JOIN inbox_receipt receipt
                    ON receipt.event_id = event.event_id AND receipt.handler = %s
                WHERE event.id > %s
                """,
                (HANDLER, after_id),
            )
            return Moments(*cursor.fetchone())

    def wait_published(self, timeout: float = 600.0) -> None:
        """Until nothing is pending."""
        give_up = time.monotonic() + timeout
        while OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists():
            if time.monotonic() > give_up:
                raise TimeoutError(f"still pending after {timeout:.0f} s")
            time.sleep(0.05)

    def wait_applied(self, after_id: int, timeout: float = 600.0) -> None:
        """Until every event behind `after_id` is in Kafka and has its receipt.

        Looks at the positions, which is cheap, and counts the receipts once they have arrived.
        """
        self.wait_published(timeout)
        ends = dict(
            _rows(
                'SELECT "partition", max("offset") + 1 FROM event_outbox'
                " WHERE id > %s AND topic = 'order-events' GROUP BY 1",
                after_id,
            )
        )
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up:
            positions = dict(
                _rows(
                    'SELECT "partition", next_offset FROM bridge_position WHERE handler = %s',
                    HANDLER,
                )
            )
            if all(positions.get(partition, 0) >= end for partition, end in ends.items()):
                return
            time.sleep(0.05)
        raise TimeoutError(f"not applied after {timeout:.0f} s: {ends} against {positions}")

    def passed(self) -> int:
        """Messages that the handler is done with, by its positions."""
        return int(
            _value(
                "SELECT coalesce(sum(next_offset), 0) FROM bridge_position WHERE handler = %s",
                HANDLER,
            )
        )

    def wait_passed(self, messages: int, timeout: float = 600.0) -> None:
        """Until it is done with so many; a look that costs nothing under a held snapshot."""
        give_up = time.monotonic() + timeout
        while self.passed() < messages:
            if time.monotonic() > give_up:
                raise TimeoutError(f"not applied after {timeout:.0f} s")
            time.sleep(0.05)

    def analyze(self) -> None:
        """What autovacuum would do within a minute of such a load."""
        with connection.cursor() as cursor:
            cursor.execute(
                "VACUUM (ANALYZE) event_outbox, inbox_receipt, bridge_position, sales_metrics,"
                " sales_additions"
            )

    def cpu_seconds(self) -> float:
        """Processor time of all our processes so far, their children included."""
        total = 0.0
        for name in OURS:
            root = psutil.Process(self.stack.process(name).pid)
            for process in (root, *root.children(recursive=True)):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> dict[str, int]:
        """Unique memory of each of our processes with its children, in bytes."""
        return {name: self.memory_of(name) for name in OURS}

    def memory_of(self, name: str) -> int:
        """Unique memory of one process with its children, in bytes."""
        root = psutil.Process(self.stack.process(name).pid)
        tree = (root, *root.children(recursive=True))
        return sum(process.memory_full_info().uss for process in tree)

    @contextmanager
    def statements(self) -> Iterator[dict[str, int]]:
        """Count what PostgreSQL is asked inside the block, by application name, from its own log;
        the dict is filled at the end of the block."""
        counted: dict[str, int] = {}
        log = self.stack.server("postgres").log
        _alter("log_statement = 'all'", "log_parameter_max_length = 0")
        offset = log.stat().st_size
        try:
            yield counted
        finally:
            _alter("log_statement = 'none'")
            with log.open("rb") as lines:
                lines.seek(offset)
                for line in lines:
                    if found := _STATEMENT.search(line):
                        name = found[1].decode()
                        counted[name] = counted.get(name, 0) + 1


def _alter(*settings: str) -> None:
    with connection.cursor() as cursor:
        for setting in settings:
            cursor.execute(f"ALTER SYSTEM SET {setting}")
        cursor.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)  # sessions read the new settings before their next statement


def _rows(sql: str, *parameters: str | int) -> list[tuple[int, int]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _value(sql: str, *parameters: str | int) -> int:
    return _rows(sql, *parameters)[0][0]
