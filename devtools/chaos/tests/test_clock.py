"""A wrong wall clock is wrong for all Python code of its process, and for nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.chaos import clock

PROGRAM = """
import datetime, os, threading, time
from time import time as taken_before
from devtools.chaos import clock
clock.shift()
begin = time.monotonic()
threading.Event().wait(0.05)
print(os.getpid(), taken_before(), datetime.datetime.now(datetime.UTC).timestamp())
print(begin, time.monotonic())
"""


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_only_the_wall_clock_is_off(tmp_path: Path, seconds: int) -> None:
    before = time.monotonic(), time.time()
    environment = {"CHAOS_CLOCK_SECONDS": str(seconds), "CHAOS_DIRECTORY": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    after = time.monotonic(), time.time()
    pid, wall, wall_by_datetime, begin, end = (float(word) for word in answer.stdout.split())
    assert before[1] + seconds <= wall <= wall_by_datetime <= after[1] + seconds
    assert before[0] <= begin < end <= after[0]
    [offset] = clock.seen_offsets(tmp_path, [int(pid), 1])
    assert offset == pytest.approx(seconds, abs=1)


def test_a_process_that_was_not_told_keeps_its_clock(tmp_path: Path) -> None:
    clock.shift()
    assert clock.seen_offsets(tmp_path, [os.getpid()]) == []
