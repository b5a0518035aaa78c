"""Processor time by process: whose it was, and how much of it an item has cost."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from devtools.localstack import LocalStack

__all__ = ["an_item", "seconds_of", "seconds_of_stack"]

LEAST_US = 0.5  # an item, to be named


def seconds_of_stack(stack: LocalStack, **others: int) -> dict[str, float]:
    """So far, of each server and of each process of ours; of `others`, pids by name; and of this process."""
    units = [*stack.units, *(server.unit for server in stack.servers if server.unit)]
    pids = {unit.name: unit.pid for unit in units if unit.is_alive()} | others
    found = {name: seconds_of(pid) for name, pid in pids.items()}
    return found | {"this benchmark": _own(psutil.Process())}


def seconds_of(pid: int) -> float:
    """Of a process with everything below it, what has ended included."""
    root = psutil.Process(pid)
    found = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found += times.user + times.system + times.children_user + times.children_system
    return found


def an_item(before: Mapping[str, float], after: Mapping[str, float], items: float) -> str:
    """Microseconds of each that was there before and after, the largest first."""
    spent = {
        name: 1e6 * (after[name] - before[name]) / max(1.0, items)
        for name in after
        if name in before
    }
    named = sorted(spent.items(), key=lambda each: -each[1])
    shown = ", ".join(f"{name} {used:.0f}" for name, used in named if used >= LEAST_US)
    return f"µs of CPU each: {shown}; together {sum(spent.values()):.0f}"


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
