"""All our processes at rest: what they take of the processor and of the memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import psycopg

from devtools.benchmarks.cpu import seconds_of
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from devtools.localstack.state import CLONE

__all__ = ["figures_of_idle", "work_first"]

RESTS_AFTER = 20.0  # seconds from the last effect
LOAD_SECONDS = 1800.0
TURN_SECONDS = 30  # of load, before the events are counted


@dataclass(frozen=True, slots=True)
class _App:
    """Its profile of generate_load, requests a second, and the topics that its events go to."""

    profile: str
    rate: int
    topics: tuple[str, ...]


APPS = (
    _App("orders", 500, ("order-events", "orders.created", "stock")),
    _App("feeds", 400, ("feed-events", "follow-events")),
    _App(
        "notifications",
        500,
        ("notifications.high", "notifications.normal", "notifications.low", "notification-status"),
    ),
)


def work_first(stack: LocalStack, events: int) -> Iterator[str]:
    """So many events of each app first, by requests: memory is that of processes that have worked.
    Says how many there are."""
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
        for app in APPS:
            while (there := _stored(connection, app.topics)) < events:
                # A request makes two events and more, but for a post.
                seconds = min(TURN_SECONDS, max(1, (events - there) // (2 * app.rate)))
                _load(stack, app, seconds)
            yield f"{there:,} events of {app.profile}"


def _stored(connection: psycopg.Connection, topics: tuple[str, ...]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM event_outbox WHERE topic = ANY (%s)", (list(topics),)
    ).fetchone()
    assert row is not None
    return int(row[0])


def _load(stack: LocalStack, app: _App, seconds: int) -> None:
    command = [
        *(sys.executable, "manage.py", "generate_load", "--profile", app.profile),
        *("--rate", str(app.rate), "--duration", f"{seconds}s", "--url", stack.base_url),
    ]
    subprocess.run(  # noqa: S603  (our own command)
        command,
        cwd=CLONE,
        env=stack.env,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=LOAD_SECONDS,
    )


def figures_of_idle(stack: LocalStack, *, seconds: float, note: str) -> list[BenchFigure]:
    """CPU and PSS of the processes of the table of roles, web, beat, bridge and relay."""
    time.sleep(RESTS_AFTER)
    pids = {unit.name: unit.pid for unit in stack.units}
    before, began = {name: seconds_of(pid) for name, pid in pids.items()}, time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - began
    shares = {name: 100 * (seconds_of(pid) - before[name]) / lasted for name, pid in pids.items()}
    memory = {name: _pss(pid) / 2**20 for name, pid in pids.items()}
    return [
        BenchFigure(
            name=f"idle CPU of {len(pids)} processes together",
            value=sum(shares.values()),
            unit="% of a core",
            at_most=7,
            note=_each(shares, ".1f"),
        ),
        BenchFigure(
            name="their memory (PSS)",
            value=sum(memory.values()),
            unit="MiB",
            at_most=900,
            note=f"{note}; {_each(memory, '.0f')}",
        ),
    ]


def _each(values: dict[str, float], form: str) -> str:
    ordered = sorted(values.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {value:{form}}" for name, value in ordered)


def _pss(pid: int) -> int:
    root = psutil.Process(pid)
    found = 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found
