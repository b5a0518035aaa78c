"""`python -m devtools.benchmarks.status_feed`: how long a change takes to 1,000 open sockets of one web
process, and what 10,000 idle ones cost it. Writes devtools/benchmarks/results/status_feed.json."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack

import psutil
import psycopg
import uvloop
from redis import asyncio as redis_asyncio

from devtools.benchmarks import machine, report
from devtools.benchmarks.hot_paths.serving import OURS, Served, serving
from devtools.benchmarks.status_feed.listeners import (
    Listeners,
    figures_of,
    measure,
    open_many_files,
)
from devtools.localstack import LocalStack
from devtools.testing.ticks.log import TICKS, ticks_table
from restapi.status_nudge import CHANNEL

Change = Callable[[int], Awaitable[float]]


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.benchmarks.status_feed", description=__doc__
    )
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, nargs="*", default=[5, 20], help="changes")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--idle", type=int, default=10_000, help="idle sockets; 0: none")
    parser.add_argument("--idle-seconds", type=float, default=40.0, help="two pings each")
    options = parser.parse_args()
    open_many_files()
    with ExitStack() as stopping:
        stack = stopping.enter_context(
            LocalStack.ephemeral(servers_only=True, own_servers=True, report=lambda _: None)
        )
        database = stack.env["DATABASE_URL"]
        _migrate(stack)
        stopping.enter_context(ticks_table(database))
        served = stopping.enter_context(
            serving(
                stack,
                OURS,
                DJANGO_SETTINGS_MODULE="devtools.testing.ticks.settings",
                WEBSOCKETS_PER_CALLER="0",
                LOG_LEVEL="WARNING",
            )
        )
        figures = []
        for rate in options.per_second:
            figures += uvloop.run(_changes(stack, served, rate, options))
        if options.idle:
            figures += uvloop.run(_idle(served, options.idle, options.idle_seconds))
        described = machine.describe(database)
    report.show("Live feeds", figures)
    report.write("status_feed", described, figures)
    return report.exit_code(figures)


def _migrate(stack: LocalStack) -> None:
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, env=stack.env, check=True)  # noqa: S603


async def _changes(
    stack: LocalStack, served: Served, rate: float, options: argparse.Namespace
) -> list[report.BenchFigure]:
    """Rows of a log, each with the nudge that its writer gives behind COMMIT."""
    database, redis_url = stack.env["DATABASE_URL"], stack.env["REDIS_URL"]
    async with (
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
        redis_asyncio.Redis.from_url(redis_url) as server,
    ):

        async def change(number: int) -> float:
            await connection.execute(
                "INSERT INTO ticks (key, number) VALUES ('bench', %s)", (number,)
            )
            committed = time.perf_counter()
            await server.publish(CHANNEL, TICKS.name)
            return committed

        paths = ["/ws/ticks?key=bench"] * options.sockets
        name = f"a change to {options.sockets:,} sockets, {rate:g}/s"
        return await _delays(name, served, paths, change, rate=rate, seconds=options.seconds)


async def _delays(
    name: str,
    served: Served,
    paths: Sequence[str],
    change: Change,
    *,
    rate: float,
    seconds: float,
) -> list[report.BenchFigure]:
    process = psutil.Process(served.pid)
    before = _cpu_seconds(process)
    opened = float("nan")

    async def first_and_others(number: int) -> float:
        nonlocal opened
        if not number:
            opened = _cpu_seconds(process)
        return await change(number)

    delays = await measure(_port(served), paths, first_and_others, per_second=rate, seconds=seconds)
    busy = _cpu_seconds(process) - opened
    note = (
        f"web: {busy * 1e6 / len(delays.each):.1f} µs of CPU a message,"
        f" {(opened - before) * 1e6 / len(paths):.0f} to open a socket"
    )
    return figures_of(name, delays, note)


async def _idle(served: Served, count: int, seconds: float) -> list[report.BenchFigure]:
    process = psutil.Process(served.pid)
    before = process.memory_info().rss
    listeners = Listeners(_port(served), ["/ws/ticks?key=idle"] * count)
    try:
        await listeners.open()
        await asyncio.sleep(1)
        after = process.memory_info().rss
        opened = _cpu_seconds(process)
        await asyncio.sleep(seconds)
        busy = _cpu_seconds(process) - opened
    finally:
        listeners.close()
    return [
        report.BenchFigure(
            name=f"{count:,} idle sockets: memory of each",
            value=(after - before) / count / 1000,
            unit="kB",
            at_most=50,
            note=f"resident memory of the web process: {before >> 20} → {after >> 20} MiB",
        ),
        report.BenchFigure(
            name=f"{count:,} idle sockets: CPU of the web process",
            value=100 * busy / seconds,
            unit="% of a core",
            note="each is pinged every 20 s",
        ),
    ]


def _cpu_seconds(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def _port(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


if __name__ == "__main__":
    sys.exit(main())
