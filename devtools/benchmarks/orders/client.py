"""Full speed on N connections, from a process of its own: wrk where it is, else our own client.

The program is the same for every row of a run, and said in the results: the tool takes processor
time from what it measures, ours several times as much as wrk.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import uvloop

from loadtest.client import Client, Failed
from loadtest.histogram import Histogram

__all__ = ["TOOL", "Requests", "Sample", "full_speed"]

TOOL = "wrk" if shutil.which("wrk") else "own client"
LUA = Path(__file__).with_name("requests.lua")
REST_SECONDS = 1.0  # requests whose client has gone away are still worked on
MICRO = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What to send. `keyed`: each with an Idempotency-Key of its own; `ids`: a file of ids, one of
    which is put behind `path` each time."""

    method: str
    path: str
    body: str = ""
    keyed: bool = False
    ids: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Good answers a second, milliseconds (nan without an answer), and how many requests failed or
    were refused."""

    rate: float
    p50: float
    p99: float
    errors: int

    @classmethod
    def of(cls, answers: int, seconds: float, p50_us: float, p99_us: float, errors: int) -> Self:
        p50, p99 = (us / 1000 if answers else math.nan for us in (p50_us, p99_us))
        return cls(rate=(answers - errors) / seconds, p50=p50, p99=p99, errors=errors)


def full_speed(url: str, wanted: Requests, *, connections: int, seconds: float) -> Sample:
    """Send until `seconds` have passed; begins when what the one before left has been answered."""
    time.sleep(REST_SECONDS)
    keys = f"bench-{uuid4().hex[:10]}" if wanted.keyed else "-"
    if TOOL == "wrk":
        with tempfile.NamedTemporaryFile("w") as body:  # it may be longer than an argument may be
            body.write(wanted.body)
            body.flush()
            return _by_wrk(url, wanted, body.name, connections, seconds=seconds, keys=keys)
    task = json.dumps([url, asdict(wanted), connections, seconds, keys])
    done = subprocess.run(
        [sys.executable, "-m", "devtools.benchmarks.orders.client"],
        input=task.encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Sample(**json.loads(done.stdout))


def _by_wrk(
    url: str, wanted: Requests, body: str, connections: int, *, seconds: float, keys: str
) -> Sample:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    script = [str(LUA), url, "--", wanted.method, wanted.path, body, keys, wanted.ids or "-"]
    done = subprocess.run(  # noqa: S603  (no shell, arguments of this module)
        [*command, "-s", *script], stdout=subprocess.PIPE, check=True
    )
    [line] = [line for line in done.stdout.decode().splitlines() if line.startswith("RESULT ")]
    answers, micros, p50, p99, errors = map(int, line.split()[1:])
    return Sample.of(answers, micros / MICRO, p50, p99, errors)


async def _send(url: str, wanted: Requests, connections: int, seconds: float, keys: str) -> Sample:
    client, latency = Client(url), Histogram()
    ids = Path(wanted.ids).read_text().split() if wanted.ids else [""]
    numbers, errors = itertools.count(), 0
    method, body = wanted.method.encode(), wanted.body.encode() or None
    begin = time.perf_counter()

    async def connection() -> None:
        nonlocal errors
        while (sent := time.perf_counter()) < begin + seconds:
            number = next(numbers)
            path = f"{wanted.path}{ids[number % len(ids)]}".encode()
            key = f"Idempotency-Key: {keys}-{number}\r\n".encode() if wanted.keyed else b""
            try:
                status = (await client.request(method, path, body, key)).status
            except Failed:
                status = 0
            errors += not 200 <= status < 400
            latency.record(int((time.perf_counter() - sent) * MICRO))

    await asyncio.gather(*(connection() for _ in range(connections)))
    spent = time.perf_counter() - begin
    client.close()
    return Sample.of(latency.count, spent, latency.percentile(50), latency.percentile(99), errors)


def main(task: str) -> None:
    """Print the sample as JSON."""
    url, wanted, connections, seconds, keys = json.loads(task)
    sample = uvloop.run(_send(url, Requests(**wanted), connections, seconds, keys))
    print(json.dumps(asdict(sample)))  # noqa: T201


if __name__ == "__main__":
    main(sys.stdin.read())
