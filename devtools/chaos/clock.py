"""A process whose wall clock is wrong, because its environment says so (CHAOS_CLOCK_SECONDS).

Its monotonic clock is right, as on a machine whose time was set by hand. What Python code reads is
shifted, in whatever way it was imported; what C libraries read by themselves (librdkafka's timers,
timestamps of its messages) is not, nor are the clocks of the servers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from devtools.chaos.environment import clock_seconds, directory

__all__ = ["seen_offsets", "shift"]

_PREFIX = "clock-"


def shift() -> None:
    """Set the clock of this process and those it forks, and note what it shows now."""
    if seconds := clock_seconds():
        from time_machine import travel  # noqa: PLC0415  (nobody else needs what it brings along)

        travel(time.time() + seconds).start()
        (directory() / f"{_PREFIX}{os.getpid()}").write_text(str(time.time()))


def seen_offsets(directory: Path, pids: Collection[int]) -> list[float]:
    """Seconds by which processes saw their clocks ahead of the file system's, once for each of
    these processes that has to shift its clock."""
    found = []
    for pid in pids:
        with suppress(FileNotFoundError):
            note = directory / f"{_PREFIX}{pid}"
            found.append(float(note.read_text()) - note.stat().st_mtime)
    return found
