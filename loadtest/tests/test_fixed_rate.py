"""The generator of `make bench-whole-path`, as the benchmark runs it: a process against the stub."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from devtools.testing.patience import PATIENCE


def generator(url: str, rate: float, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "devtools.benchmarks.whole_path.generator"),
            *(url, str(rate), str(seconds)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def result(program: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0
    found: dict[str, Any] = json.loads(said)
    return found


def test_every_order_that_is_due_is_sent_and_its_answer_counted(stub: str) -> None:
    found = result(generator(f"{stub}/ok", 200, 0.5))
    assert (found["answered"], found["failed"]) == (100, 0)
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["cpu_us"] > 0


def test_what_is_no_success_is_counted_apart(stub: str) -> None:
    found = result(generator(f"{stub}/status_503", 200, 0.1))
    assert (found["answered"], found["failed"]) == (0, 20)


def test_a_server_may_close_a_connection_behind_an_answer(stub: str) -> None:
    found = result(generator(f"{stub}/closes", 20, 0.5))
    assert found["answered"] + found["failed"] == 10
    assert found["answered"]
