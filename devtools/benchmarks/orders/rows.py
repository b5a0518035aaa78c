"""What is measured: writes, reads, and how deep a page lies."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from devtools.benchmarks.orders.client import Requests, Sample, full_speed
from devtools.benchmarks.report import BenchFigure
from orders.queries import Cursor

__all__ = ["CONNECTIONS", "Servers", "deep_page", "fill", "reads", "writes"]

CONNECTIONS = (1, 32, 256)
PAGE = 20
DEEP_PAGE = 10_000
ROUNDS = 5
SIMPLE = json.dumps({"user_id": "u1", "amount": 42.5})
ITEMS = json.dumps(
    {
        "customerId": "cust-123",
        "items": [
            {"productId": f"p{n}", "quantity": n, "price": price}
            for n, price in ((1, 10), (2, 19.99), (3, 5.5))
        ],
    }
)
WRITES: Mapping[str, Requests] = {
    "POST simple": Requests(method="POST", path="/orders", body=SIMPLE),
    "POST 3 items": Requests(method="POST", path="/orders", body=ITEMS),
    "POST simple, Idempotency-Key": Requests(
        method="POST", path="/orders", body=SIMPLE, keyed=True
    ),
}


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses: ours, ours with HOT_PATHS off, and the bare program."""

    ours: str
    without_hot_paths: str
    bare: str


def writes(servers: Servers, connections: int, seconds: float) -> Iterable[BenchFigure]:
    """Each body on our two servers and on the bare one, one after the other."""
    for name, wanted in WRITES.items():
        bare = full_speed(servers.bare, wanted, connections=connections, seconds=seconds)
        for url, how in ((servers.ours, "on"), (servers.without_hot_paths, "off")):
            found = full_speed(url, wanted, connections=connections, seconds=seconds)
            yield _figure(f"{name}, {connections} conn., HOT_PATHS {how}", found, bare)


def reads(servers: Servers, connections: int, seconds: float, ids: Path) -> Iterable[BenchFigure]:
    """A page of the list and one order."""
    for name, wanted in (
        ("GET /orders", Requests(method="GET", path="/orders")),
        ("GET /orders/{id}", Requests(method="GET", path="/orders/", ids=str(ids))),
    ):
        bare = full_speed(servers.bare, wanted, connections=connections, seconds=seconds)
        found = full_speed(servers.ours, wanted, connections=connections, seconds=seconds)
        yield _figure(f"{name}, {connections} conn.", found, bare)


def _figure(name: str, found: Sample, bare: Sample) -> BenchFigure:
    note = f"p50 {found.p50:.1f}, p99 {found.p99:.1f} ms; bare {bare.p50:.1f}, {bare.p99:.1f} ms"
    if found.errors or bare.errors:
        note += f"; failed: ours {found.errors}, bare {bare.errors}"
    return BenchFigure(name=name, value=found.rate, unit="/s", ceiling=bare.rate, note=note)


def deep_page(servers: Servers, orders: int, seconds: float) -> list[BenchFigure]:
    """Page 1 against page 10,000 in turns, so that what else the machine does meets both. A query
    string has both go through Django: without one page 1 is a hot path, twice as fast."""
    depth = min(DEEP_PAGE, orders // PAGE - 1)
    first = Requests(method="GET", path=f"/orders?limit={PAGE}")
    deep = Requests(method="GET", path=f"/orders?cursor={_cursor(depth)}")
    samples: dict[Requests, list[Sample]] = {first: [], deep: []}
    for _ in range(ROUNDS):
        for wanted, found in samples.items():
            found.append(full_speed(servers.ours, wanted, connections=1, seconds=seconds))
    p99 = {wanted: statistics.median(s.p99 for s in found) for wanted, found in samples.items()}
    p50 = {wanted: statistics.median(s.p50 for s in found) for wanted, found in samples.items()}
    failed = sum(sample.errors for found in samples.values() for sample in found)
    return [
        BenchFigure(
            name=f"p99 of page {depth:,} against page 1, {orders:,} orders",
            value=p99[deep] / p99[first] if not failed else float("nan"),
            unit="times",
            at_most=1.5,
            note=f"median of {ROUNDS}: p99 {p99[deep]:.1f} and {p99[first]:.1f} ms, "
            f"p50 {p50[deep]:.1f} and {p50[first]:.1f} ms; failed {failed}",
        )
    ]


def _cursor(page: int) -> str:
    """That of the page: the last order of the one before."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT created_at, id FROM orders ORDER BY created_at DESC, id DESC OFFSET %s LIMIT 1",
            ((page - 1) * PAGE - 1,),
        )
        return Cursor(*cursor.fetchone()).to_text()


def fill(orders: int, ids: Path) -> None:
    """Orders with two lines and their creation, spread over 30 days, and a sample of their ids."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH fresh AS MATERIALIZED (
                SELECT gen_random_uuid() AS id, n, now() - n * interval '30 days' / %(orders)s AS at
                FROM generate_series(1, %(orders)s) AS n
            ), placed AS (
                INSERT INTO orders (id, customer_id, total, status, created_at)
                SELECT id, 'customer-' || n %% 5000, 30, 'CREATED', at FROM fresh
            ), lined AS (
                INSERT INTO order_lines (order_id, product_id, quantity, price)
                SELECT id, 'product-' || (n + line) %% 1000, line, 10
                FROM fresh, generate_series(1, 2) AS line
            )
            INSERT INTO order_changes (order_id, to_status, actor, at, event_ids)
            SELECT id, 'CREATED', 'benchmark', at, ARRAY[gen_random_uuid()] FROM fresh
            """,
            {"orders": orders},
        )
        cursor.execute("VACUUM (ANALYZE) orders, order_lines, order_changes")
        cursor.execute("SELECT id FROM orders ORDER BY random() LIMIT 2000")
        ids.write_text("\n".join(str(row[0]) for row in cursor.fetchall()) + "\n")
