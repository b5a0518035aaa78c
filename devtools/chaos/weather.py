"""What goes on beside the faults: the writer, buyers, and a look at the backlog."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from devtools.chaos import load
from devtools.chaos.buyers import Bought, buy
from devtools.chaos.evidence import Evidence, EvidenceMark, PendingWork
from devtools.chaos.load import WriteAttempt, WriterPlan
from devtools.localstack import LocalStack
from devtools.testing.processes import running

__all__ = ["Load", "WeatherWatch", "steady_load", "watch"]

NORMAL_AGE = 2.0  # seconds; older than this nothing waits when nothing is wrong
LOOK_INTERVAL = 0.3
STARTS_WITHIN = 60.0  # seconds


@dataclass(slots=True)
class Load:
    """What was promised while the load ran."""

    attempts: list[WriteAttempt] = field(default_factory=list)
    bought: Bought = field(default_factory=Bought)


@contextmanager
def steady_load(
    stack: LocalStack,
    prefix: str,
    directory: Path,
    *,
    rate: float,
    orders_rate: float,
    database_url: str = "",
) -> Iterator[Load]:
    """The writer's process and buyers over HTTP until the end of the block; `Load` is complete
    after it. `database_url`: what the writer connects to, if not the server itself."""
    log = directory / f"{prefix.strip(':')}.jsonl"
    plan = WriterPlan(prefix=prefix, log=str(log), rate=rate)
    found = Load()
    stop = threading.Event()
    buyers = threading.Thread(
        target=buy, args=(stack.base_url, orders_rate, stop, found.bought), daemon=True
    )
    environment = dict(stack.env)
    if database_url:
        environment["DATABASE_URL"] = database_url
    with running(load.command(plan), environment) as writer:
        _wait_until_it_writes(log)
        buyers.start()
        try:
            yield found
        finally:
            stop.set()
            died = writer.child.poll()
            code = writer.stop()
            buyers.join()
    if died is not None:
        raise AssertionError(f"the writer ended with {code}")
    found.attempts = list(load.read_log(log))


def _wait_until_it_writes(log: Path) -> None:
    """A busy machine takes longer to start the writer than a short scenario lasts."""
    give_up = time.monotonic() + STARTS_WITHIN
    while not log.exists():
        if time.monotonic() > give_up:
            raise AssertionError(f"the writer has not begun within {STARTS_WITHIN:.0f} s")
        time.sleep(0.05)


@dataclass(slots=True)
class WeatherWatch:
    """The backlog as it was seen: moment (seconds since the epoch) and what was found."""

    seen: list[tuple[float, PendingWork]] = field(default_factory=list)

    def normal_age(self, before: float) -> float:
        """What the oldest event's age was before anything was broken, doubled: a busy machine has
        a normal of its own."""
        ages = sorted(found.oldest_seconds for moment, found in self.seen if moment < before)
        return max(NORMAL_AGE, 2 * ages[int(len(ages) * 0.9)]) if ages else NORMAL_AGE

    def recovery(self, fault_begin: float, fault_end: float) -> float | None:
        """Seconds from `fault_end` to the first of two looks that found nothing old; None: never."""
        normal = self.normal_age(fault_begin)
        after = [(moment, found) for moment, found in self.seen if moment >= fault_end]
        for (moment, found), (_, next_found) in itertools.pairwise(after):
            if found.oldest_seconds < normal and next_found.oldest_seconds < normal:
                return moment - fault_end
        return None

    def peak(self) -> int:
        """The most events that were under way at once."""
        return max((found.open for _, found in self.seen), default=0)


@contextmanager
def watch(evidence: Evidence, mark: EvidenceMark) -> Iterator[WeatherWatch]:
    """Looks at the backlog until the end of the block; a database that is unavailable is passed over."""
    seen = WeatherWatch()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_INTERVAL):
            try:
                found = evidence.backlog(mark)
            except psycopg.Error:
                continue
            seen.seen.append((time.time(), found))

    thread = threading.Thread(target=look, daemon=True, name="chaos-watch")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
