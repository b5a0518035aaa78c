"""wrk, and what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Measured", "both", "measure", "require_wrk", "warm_up"]

SCRIPT = Path(__file__).parent / "load.lua"


@dataclass(frozen=True, slots=True)
class Measured:
    """`rate` answers a second; `cpu_us`: processor time of the server's processes for each of them.
    `errors`: answers that are no success, and connections that broke."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float


def require_wrk() -> str:
    """Where wrk is. Raises SystemExit that says how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("wrk is missing; on Debian: apt-get install wrk")
    return found


def measure(
    pid: int,
    url: str,
    kind: str,
    *words: str,
    connections: int,
    seconds: float,
    script: Path = SCRIPT,
) -> Measured:
    """Load of one kind (see load.lua, or another script like it) from one thread."""
    before = _cpu_seconds(pid)
    said = _run(url, kind, *words, connections=connections, seconds=seconds, script=script)
    cpu = _cpu_seconds(pid) - before
    return Measured(
        rate=said["requests"] / said["seconds"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
        errors=int(said["errors"]),
        cpu_us=1e6 * cpu / max(1.0, said["requests"]),
    )


def warm_up(url: str, kind: str, *words: str, connections: int, script: Path = SCRIPT) -> None:
    """A second of the same load, for nothing. Raises SystemExit if none of it is answered."""
    said = _run(url, kind, *words, connections=connections, seconds=1, script=script)
    if said["requests"] <= said["errors"]:
        raise SystemExit(f"{url} answers nothing of the load {kind}; its log says why")


def both(one: Measured, other: Measured) -> Measured:
    """Two measurements of equal length as one."""
    return Measured(
        rate=(one.rate + other.rate) / 2,
        p50_ms=(one.p50_ms + other.p50_ms) / 2,
        p99_ms=max(one.p99_ms, other.p99_ms),
        errors=one.errors + other.errors,
        cpu_us=(one.cpu_us * one.rate + other.cpu_us * other.rate)
        / max(1.0, one.rate + other.rate),
    )


def _run(url: str, *words: str, connections: int, seconds: float, script: Path) -> dict[str, float]:
    command = [
        *(require_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
        *("--timeout", "20s", "-s", str(script), url, "--", *words),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    said: dict[str, float] = json.loads(output.splitlines()[-1])
    return said


def _cpu_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(each.user + each.system for each in times)
