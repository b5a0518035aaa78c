"""`python -m devtools.benchmarks.gateway`: what the gateway itself costs a request, in CPU.

Calls the layer with an application that does nothing, in one thread on uvloop, and takes the cost
of calling that application directly away. No server, no socket, no database: keys are in memory as
they are in a busy process, the limiter is off, metrics go to files as on the stack, the log to
/dev/null. So many requests share a turn of the event loop, and with it the writes of the access log.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
_METRICS = tempfile.TemporaryDirectory()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = _METRICS.name  # before prometheus_client is imported

import django  # noqa: E402
import uvloop  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

django.setup()

from apikeys.models import hash_of, make_key, prefix_of  # noqa: E402
from apikeys.queries import KeyState  # noqa: E402
from eventsite.web.gateway.access_log import AccessLog  # noqa: E402
from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send  # noqa: E402
from eventsite.web.gateway.django_app import middleware_headers  # noqa: E402
from eventsite.web.gateway.keyring import Keyring  # noqa: E402
from eventsite.web.gateway.layer import Gateway, Parts, Rules  # noqa: E402

RESULT = Path(__file__).parent / "results" / "gateway.json"
TARGET_US = 20.0
ROUNDS = 25
TURN = 16  # half of 32 connections
KEY = make_key()
BODY = b'{"user_id": "u1", "amount": 42.5}'
ANSWER = b'{"status": "success"}'
PLAIN = [
    (b"host", b"localhost:8080"),
    (b"user-agent", b"bench/1.0"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
    (b"connection", b"keep-alive"),
]
WITH_KEY = [*PLAIN, (b"authorization", b"Bearer " + KEY.encode())]
WITH_IDS = [
    *WITH_KEY,
    (b"x-request-id", b"0199f4a2-0000-7000-8000-000000000001"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
]


async def stub(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers, as little as an application can do."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"21")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def read_keys(revision: int, used: Collection[int]) -> list[KeyState]:
    """One key, as the database would give it."""
    sha256 = hash_of(KEY) or b""
    scopes = frozenset({"orders:read", "orders:write"})
    return [KeyState(1, sha256, prefix_of(KEY), "bench", scopes, float("inf"), False, 1)]


def gateway(log_level: str) -> Gateway:
    """The layer as eventsite.web.gateway.wiring makes it, but for the database."""
    parts = Parts(
        rules=Rules(
            keys_required=False,
            trusted_proxies=0,
            max_body_bytes=1024 * 1024,
            headers=middleware_headers(),
        ),
        keyring=Keyring(read_keys),
        limiter=None,
        access_log=AccessLog(service="web", level=log_level),
    )
    return Gateway(stub, parts)


async def _receive() -> Message:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def _send(message: Message) -> None:
    pass


def _scope(path: str, headers: list[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
    }


async def _cost(application: Application, case: Case, count: int) -> float:
    """Microseconds of CPU a request, its line in the log included."""
    access_log = AccessLog(
        service="web", level=case.level
    )  # none that is busy from the case before
    if isinstance(application, Gateway):
        application._access_log = access_log
    begin = time.process_time()
    for number in range(count):
        await application(_scope(case.path, case.headers), _receive, _send)
        if number % case.turn == 0:
            await asyncio.sleep(0)
            if case.turn == 1:
                access_log.flush()  # nobody comes within the time for which lines are collected
    access_log.close()
    return (time.process_time() - begin) * 1e6 / count


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked; `turn`: requests in a turn of the event loop."""

    headers: list[tuple[bytes, bytes]]
    path: str = "/orders"
    level: str = "INFO"
    turn: int = TURN


TARGET = "key, log, ids made"
CASES = {
    TARGET: Case(WITH_KEY),
    "key, log, ids made, alone": Case(WITH_KEY, turn=1),
    "key, log, ids taken": Case(WITH_IDS),
    "key, log, a pattern's path": Case(WITH_KEY, "/orders/0199f4a2-0000-7000-8000-1/pay"),
    "no key, log": Case(PLAIN),
    "key, LOG_LEVEL=WARNING": Case(WITH_KEY, level="WARNING"),
}


async def _measure(count: int) -> dict[str, dict[str, float]]:
    """Best and median of rounds in which all cases take turns. The best is the cost itself: others
    on the same cores only ever add to it (caches, shared execution units)."""
    layers = {level: gateway(level) for level in ("INFO", "WARNING")}
    bare: dict[int, list[float]] = {case.turn: [] for case in CASES.values()}
    costs: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for turn, seen in bare.items():
            seen.append(await _cost(stub, Case(WITH_KEY, turn=turn), count))
        for name, case in CASES.items():
            costs[name].append(await _cost(layers[case.level], case, count))
    for layer in layers.values():
        await layer._keyring.close()
    return {
        name: {
            "best": round(min(each) - min(bare[CASES[name].turn]), 1),
            "median": round(statistics.median(each) - statistics.median(bare[CASES[name].turn]), 1),
        }
        for name, each in costs.items()
    }


async def _profile(count: int) -> None:
    layer = gateway("INFO")
    await _cost(layer, CASES[TARGET], 100)
    profile = cProfile.Profile()
    profile.enable()
    await _cost(layer, CASES[TARGET], count)
    profile.disable()
    await layer._keyring.close()
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)


def _quietly(make: Callable[[], Awaitable[Any]]) -> Any:
    """Run with standard error, where the log goes, on /dev/null."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        return uvloop.run(make())  # type: ignore[arg-type]
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def main() -> int:
    """0; with STRICT=1 in the environment 1 if the target was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.benchmarks.gateway", description=__doc__
    )
    parser.add_argument("--requests", type=int, default=1000, help="a round and case")
    parser.add_argument("--profile", action="store_true", help="where the time goes (cProfile)")
    options = parser.parse_args()
    if options.profile:
        _quietly(lambda: _profile(20_000))
        return 0
    load = os.getloadavg()[0]
    result: dict[str, dict[str, float]] = _quietly(lambda: _measure(options.requests))
    met = result[TARGET]["best"] <= TARGET_US
    table = Table(title=f"The gateway's own cost, target {TARGET_US} µs", title_justify="left")
    table.add_column("request")
    table.add_column("µs of CPU, best round", justify="right")
    table.add_column("median", justify="right")
    for name, cost in result.items():
        table.add_row(name, str(cost["best"]), str(cost["median"]))
    table.caption = f"load average before: {load:.1f} on {os.cpu_count()} cores"
    Console(width=100).print(table)
    RESULT.parent.mkdir(exist_ok=True)
    kept = {
        "rounds": ROUNDS,
        "load_average_before": load,
        "microseconds": result,
        "target": {"name": TARGET, "at_most": TARGET_US, "met": met},
    }
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")
    return int(bool(os.environ.get("STRICT")) and not met)


if __name__ == "__main__":
    sys.exit(main())
