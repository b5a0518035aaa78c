"""All our processes at rest: what they take of the processor and of the memory."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

import psutil

from devtools.benchmarks.cpu import seconds_of
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from devtools.localstack.state import CLONE

__all__ = ["figures_of_idle", "work_first"]

RESTS_AFTER = 20.0  # seconds from the last effect
RATES = {"orders": 500, "feeds": 200, "notifications": 500}
LOAD_SECONDS = 1800.0


def work_first(stack: LocalStack, events: int) -> None:
    """So many orders, posts and notifications first: memory is that of processes that have worked."""
    for profile, rate in RATES.items():
        command = [
            *(sys.executable, "manage.py", "generate_load", "--profile", profile),
            *("--rate", str(rate), "--duration", f"{max(1, events // rate)}s"),
            *("--url", stack.base_url),
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
