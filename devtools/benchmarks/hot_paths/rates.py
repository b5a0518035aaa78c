"""Requests a second of each hot path, beside the barest server and the way through Django."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import psycopg

from devtools.benchmarks.hot_paths import bare
from devtools.benchmarks.hot_paths.owners import sampling
from devtools.benchmarks.hot_paths.serving import BARE, OURS, UNGATED, Served, serving
from devtools.benchmarks.hot_paths.wrk import Measured, both, measure, warm_up
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from orders.services import INSERT_ORDERS
from outbox.publish.events import INSERT_EVENTS

__all__ = ["HotPathRates"]

# connections, at least so many a second, p99 at most so many milliseconds
SIMPLE = ((1, 900, 2), (32, 8_000, 8), (256, 12_000, 40))
KINDS = ("simple", "items", "order", "list")
# Reads last: for a while after its start Kafka's JVM compiles, beside whatever comes first.
AT_32 = {"items": 3_000, "keyed": 6_000, "order": 15_000, "list": 8_000}
SHARE = 70  # % of the bare server's rate
SHARE_TURNS = 15  # of four seconds each: the speed of a shared host changes all the time
GATEWAY_US = 20
ALONE = Path(__file__).parents[1] / "results" / "gateway.json"
IDS = 1000
CEILING_ORDERS = 64  # in a batch


class HotPathRates:
    """One stack without our processes; each figure starts the web process that it needs."""

    def __init__(self, stack: LocalStack, seconds: float) -> None:
        self._stack = stack
        self._seconds = seconds
        self._ids = stack.state.root / "order-ids"

    def bare(self) -> list[BenchFigure]:
        """The ceilings of this machine: the rows that PostgreSQL takes, and the barest server, with
        ours beside it. They take turns of a second, one before and after the other, so that a host
        that slows down slows both. Then what the barest makes by itself of the loads of `hot`."""
        figures = [
            BenchFigure(
                name=f"rows, {CEILING_ORDERS} orders of 3 items a commit",
                value=self._rows(),
                unit="/s",
            )
        ]
        with serving(self._stack, BARE) as barest, serving(self._stack, OURS) as ours:
            self._write_orders(ours)
            for kind in KINDS:
                figures += _beside(kind, self._turns(kind, barest, ours))
            for connections, _, _ in SIMPLE:
                found = self._load(barest, "simple", connections=connections)
                figures.append(_shown(f"bare server by itself, {_simple_at(connections)}", found))
            found = self._load(barest, "keyed")
            figures.append(_shown(f"bare server by itself, {_NAMES['keyed']}", found))
        return figures

    def hot(self) -> list[BenchFigure]:
        """Ours, with all that belongs to it."""
        figures = []
        with serving(self._stack, OURS) as served:
            self._write_orders(served)
            for kind, rate in AT_32.items():
                figures += _figures(_NAMES[kind], self._load(served, kind), rate)
            for connections, rate, p99 in SIMPLE:
                found = self._load(served, "simple", connections=connections)
                figures += _figures(_simple_at(connections), found, rate, p99)
        return figures

    def django(self) -> list[BenchFigure]:
        """The same requests, all through Django."""
        with serving(self._stack, OURS, HOT_PATHS="off") as served:
            self._write_orders(served)
            return [
                _shown(f"through Django, {_NAMES[kind]}", self._load(served, kind))
                for kind in KINDS
            ]

    def gateway(self) -> list[BenchFigure]:
        """Processor time of a request in the gateway: by itself, where it is known to the
        microsecond, and beside it as the difference of two web processes under load."""
        command = [sys.executable, "-m", "devtools.benchmarks.gateway"]
        judged_here = {name: value for name, value in os.environ.items() if name != "STRICT"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=judged_here)  # noqa: S603
        kept = json.loads(ALONE.read_text())
        alone = kept["microseconds"][kept["target"]["name"]]
        cost = []
        for application in (UNGATED, OURS):
            with serving(self._stack, application) as served:
                self._write_orders(served)
                cost.append(self._load(served, "order").cpu_us)
        return [
            BenchFigure(
                name="the gateway's cost by itself, key, log and ids",
                value=alone["best"],
                unit="µs a request",
                at_most=GATEWAY_US,
                note=f"best of {kept['rounds']} rounds, median {alone['median']} µs",
            ),
            BenchFigure(
                name="a request with the gateway less one without",
                value=cost[1] - cost[0],
                unit="µs",
                note=f"{cost[1]:.0f} µs with it, {cost[0]:.0f} µs without, GET /orders/{{id}} at 32",
            ),
        ]

    def profile(self) -> list[BenchFigure]:
        """Whose the processor time of a request is, beside the barest server's."""
        figures = []
        with serving(self._stack, BARE) as barest, serving(self._stack, OURS) as ours:
            self._write_orders(ours)
            for kind in KINDS:
                bares, owners = self._microseconds(barest, kind), self._microseconds(ours, kind)
                beside = ", ".join(f"{owner} {spent:.1f}" for owner, spent in bares)
                figures.append(
                    BenchFigure(
                        name=_NAMES[kind],
                        value=sum(spent for _, spent in owners),
                        unit="µs",
                        note=f"bare server {sum(spent for _, spent in bares):.0f}: {beside}",
                    )
                )
                figures += [
                    BenchFigure(name=f"  {owner}", value=spent, unit="µs")
                    for owner, spent in owners
                ]
        return figures

    def _microseconds(self, served: Served, kind: str) -> list[tuple[str, float]]:
        """Of processor time a request by owner, the largest first."""
        self._prepare(served, kind, 32)
        with sampling(served.pid, self._seconds) as shares:
            spent = self._measured(served, kind, 32).cpu_us
        by_owner = {owner: share * spent for owner, share in shares().items()}
        return sorted(by_owner.items(), key=itemgetter(1), reverse=True)

    def _turns(self, kind: str, barest: Served, ours: Served) -> list[tuple[Measured, Measured]]:
        words = self._words(kind)

        def second(served: Served) -> Measured:
            return measure(served.pid, served.url, kind, *words, connections=32, seconds=1)

        self._settle()
        for served in (barest, ours):
            warm_up(served.url, kind, *words, connections=32)
        turns = []
        for _ in range(SHARE_TURNS):
            before, mine, mine_too, after = (second(each) for each in (barest, ours, ours, barest))
            turns.append((both(before, after), both(mine, mine_too)))
        return turns

    def _load(self, served: Served, kind: str, *, connections: int = 32) -> Measured:
        self._prepare(served, kind, connections)
        return self._measured(served, kind, connections)

    def _prepare(self, served: Served, kind: str, connections: int) -> None:
        warm_up(served.url, kind, *self._words(kind), connections=connections)
        self._settle()

    def _measured(self, served: Served, kind: str, connections: int) -> Measured:
        words = self._words(kind)
        return measure(
            served.pid, served.url, kind, *words, connections=connections, seconds=self._seconds
        )

    def _settle(self) -> None:
        """PostgreSQL has work of its own for a minute with what a load has written, and takes half
        of the machine for it: the next load is not to pay for the one before. Plans that were made
        while a table was empty are made again after it, also where nobody forgets them."""
        with psycopg.connect(self._stack.env["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")

    def _words(self, kind: str) -> list[str]:
        return [str(self._ids)] if kind == "order" else []

    def _write_orders(self, served: Served) -> None:
        """Orders to read, where no other part has left some."""
        if not self._ids.exists():
            measure(served.pid, served.url, "items", connections=32, seconds=1)
            self._choose_ids()

    def _choose_ids(self) -> None:
        with psycopg.connect(self._stack.env["DATABASE_URL"], autocommit=True) as connection:
            rows = connection.execute(
                "SELECT order_id::text FROM order_lines GROUP BY 1 ORDER BY 1 DESC LIMIT %s",
                (IDS,),
            ).fetchall()
        Path(self._ids).write_text("".join(f"{row[0]}\n" for row in rows))

    def _rows(self) -> float:
        """Rows a second that one connection commits: the same two statements, nothing else.
        Their parameters are made before the clock starts."""
        body = {
            "customerId": "customer-1",
            "items": [{"productId": f"product-{n}", "quantity": 2, "price": 9.5} for n in range(3)],
        }
        batches = 100
        drafts = [[bare.draft(body) for _ in range(CEILING_ORDERS)] for _ in range(batches)]
        prepared = [bare.parameters(batch) for batch in drafts]
        rows = batches * sum(2 + len(each[4]) + len(each[5]) for each in drafts[0])
        url = self._stack.env["DATABASE_URL"]
        with psycopg.connect(url, prepare_threshold=0, options=bare.OPTIONS) as connection:
            begin = time.perf_counter()
            for orders, outbox in prepared:
                with connection.pipeline():
                    connection.execute(INSERT_ORDERS, orders)
                    connection.execute(INSERT_EVENTS, outbox)
                    connection.commit()
            return rows / (time.perf_counter() - begin)


def _simple_at(connections: int) -> str:
    return f"POST /orders simple at {connections}"


_NAMES = {
    "simple": _simple_at(32),
    "items": "POST /orders with 3 items at 32",
    "keyed": "with Idempotency-Key at 32",
    "order": "GET /orders/{id} at 32",
    "list": "GET /orders at 32",
}


def _beside(kind: str, turns: Sequence[tuple[Measured, Measured]]) -> list[BenchFigure]:
    """The turn with the median share, and both servers' rates in it; an answer that is no success
    in any turn spoils it."""
    shares = sorted(
        ((100 * ours.rate / barest.rate, barest, ours) for barest, ours in turns),
        key=itemgetter(0),
    )
    share, barest, ours = shares[len(shares) // 2]
    seen = ", ".join(f"{each[0]:.0f} %" for each in shares)
    name = _NAMES[kind]
    spoiled = any(found.errors for turn in turns for found in turn)
    return [
        _shown(f"bare server, {name}", barest),
        _shown(f"ours in its turn, {name}", ours),
        BenchFigure(
            name=f"share of the bare server's rate, {name}",
            value=float("nan") if spoiled else share,
            unit="%",
            at_least=SHARE,
            note=f"median of {seen}",
        ),
    ]


def _note(found: Measured) -> str:
    note = f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, {found.cpu_us:.0f} µs of CPU a request"
    return f"{note}, {found.errors} ERRORS" if found.errors else note


def _shown(name: str, found: Measured) -> BenchFigure:
    value = float("nan") if found.errors else found.rate
    return BenchFigure(name=name, value=value, unit="/s", note=_note(found))


def _figures(
    name: str, found: Measured, rate: float, p99: float | None = None
) -> list[BenchFigure]:
    """A rate with its target (an answer that is no success spoils it), and its p99 if it has one."""
    value = float("nan") if found.errors else found.rate
    figures = [BenchFigure(name=name, value=value, unit="/s", at_least=rate, note=_note(found))]
    if p99 is not None:
        figures.append(BenchFigure(name=f"{name}, p99", value=found.p99_ms, unit="ms", at_most=p99))
    return figures
