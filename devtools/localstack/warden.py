"""Ends what a stack left behind, however its owner died.

Run as a script beside every stack: `python -I warden.py VARIABLE MARK [REMOVE…]` waits until its
parent closes the pipe on stdin or dies, then kills every process whose environment holds MARK in
VARIABLE and deletes the REMOVE directories. The death signal of launch.py reaches only direct
children; this reaches what they started as well.

Stands alone (standard library and psutil), so that it costs little and cannot fail on an import.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

__all__ = ["marked", "sweep"]

DEATH_SIGNAL_WORKS = 0.4  # seconds in which direct children end by themselves
PATIENCE = 5.0  # seconds until what was killed must be gone


def main(variable: str, mark: str, removals: Sequence[str]) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    parent = os.getppid()
    wait_for_the_end(parent)
    if os.getppid() != parent:
        time.sleep(DEATH_SIGNAL_WORKS)  # PostgreSQL then gives back its shared memory
    sweep(variable, mark)
    for path in removals:
        remove(path)


def wait_for_the_end(parent: int) -> None:
    """Return when stdin ends or the parent is gone (a forked copy of it may hold the pipe open)."""
    watched: list[int] = [sys.stdin.fileno()]
    with suppress(
        AttributeError, OSError
    ):  # not Linux, or gone already: then only the pipe shows it
        watched.append(os.pidfd_open(parent))
    select.select(watched, [], [])


def marked(variable: str, mark: str) -> list[psutil.Process]:
    """Every living process with this mark, but for this one and its ancestors.

    A mark is `<state>#<run>`; a bare `<state>` finds the processes of all its runs.
    """
    spared = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in spared or process.status() == psutil.STATUS_ZOMBIE:
                continue
            marks = process.environ().get(variable, "").split(os.pathsep)
            if any(found_mark == mark or found_mark.startswith(f"{mark}#") for found_mark in marks):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def sweep(variable: str, mark: str) -> int:
    """Kill every marked process and what it started; the number of processes killed."""
    killed = 0
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (found := marked(variable, mark)):
        for process in found:
            try:
                # psutil compares the start time first, so a recycled pid is safe
                for victim in (process, *process.children(recursive=True)):
                    if __file__ not in victim.cmdline():  # the warden of a stack inside has work
                        victim.kill()
            except psutil.Error:
                continue
        gone, _ = psutil.wait_procs(found, timeout=1.0)
        killed += len(gone)
    return killed


def remove(path: str) -> None:
    """Delete a directory, again while dying processes still write into it."""
    deadline = time.monotonic() + PATIENCE
    while os.path.lexists(path) and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
