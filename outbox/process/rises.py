"""By how much the counters that an alarm judges have risen of late, in a process and its children.

Prometheus remembers counters. A page that was just opened does not, nor a command that looks once; so each process
remembers its own, and says it with its heartbeat."""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from outbox.watching import Alarm

__all__ = ["Rises"]

_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Rises:
    """Counts from the moment at which it is made. One thread at a time may use it."""

    def __init__(self, alarms: Sequence[Alarm], pids: Sequence[int]) -> None:
        self._seconds = {alarm.figure: alarm.rises for alarm in alarms if alarm.rises}
        self._wanted: defaultdict[str, list[tuple[str, set[tuple[str, str]]]]] = defaultdict(list)
        for figure in self._seconds:
            self._wanted[figure.partition("{")[0]].append((figure, set(_LABEL.findall(figure))))
        # One search, because most keys are of other counters.
        self._names = re.compile(f'"({"|".join(self._wanted) or "(?!)"})"')
        self._counted = self._count(pids)
        self._risen: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)

    def within(self, pids: Sequence[int]) -> Mapping[str, float]:
        """Figure of an alarm -> by how much it has risen in these processes within the time that the alarm asks
        for. A figure that has not risen is left out. A process that was not there before has begun with 0."""
        now, counted = time.monotonic(), self._count(pids)
        for (pid, figure), value in counted.items():
            if (by := value - self._counted.get((pid, figure), 0.0)) > 0:
                self._risen[figure].append((now, by))
        # What could not be read just now is not forgotten: all of it would be a rise.
        before = {key: value for key, value in self._counted.items() if key[0] in pids}
        self._counted = before | counted
        found = {}
        for figure, rises in self._risen.items():
            while rises and now - rises[0][0] > self._seconds[figure]:
                rises.popleft()
            if rises:
                found[figure] = sum(by for _, by in rises)
        return found

    def _count(self, pids: Sequence[int]) -> dict[tuple[int, str], float]:
        counted: defaultdict[tuple[int, str], float] = defaultdict(float)
        for pid in pids:
            for key, value in _counters(pid):
                if (name := self._names.search(key)) is None:
                    continue
                for figure, labels in self._wanted[name[1]]:
                    if labels <= json.loads(key)[2].items():
                        counted[pid, figure] += value
        return counted


def _counters(pid: int) -> list[tuple[str, float]]:
    """The counters of one process: [family, series, labels, help] as JSON, and the value."""
    file = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) / f"counter_{pid}.db"
    try:
        found = MmapedDict.read_all_values_from_file(file)  # type: ignore[no-untyped-call]
        return [(key, value) for key, value, *_ in found]
    except (OSError, RuntimeError, ValueError, struct.error):
        return []  # it has counted nothing yet, or is about to write a new series
