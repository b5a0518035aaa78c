"""Many requests at one moment, something broken in the middle of them, and what is left of it.

Every request names a customer of its own, so that each order is recognised. Nothing here
needs Django: what is stored is judged by statements of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg

__all__ = ["Account", "Volley", "account_of", "fire", "raise_file_limit"]

ACCEPTED = (200, 201)
LOST = "lost"
HUNG_UP = "hung up"
OPENED_AT_ONCE = 200
OPENING_SECONDS = 3.0  # well below what a server grants a connection that has sent nothing
PATIENCE = 120.0  # seconds for all answers


@dataclass(slots=True)
class Volley:
    """What became of each request: `accepted` its order's id by customer; `refused` the outcome
    that a 503 named; `gone` those that were cut off (`lost`) or hung up themselves (`hung up`)."""

    requests: int
    accepted: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return len(self.accepted) + len(self.refused)

    def __str__(self) -> str:
        refused, gone = Counter(self.refused.values()), Counter(self.gone.values())
        return (
            f"{self.requests} requests: {len(self.accepted)} accepted, refused {dict(refused)},"
            f" without an answer {dict(gone)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is wrong with what is stored; all zero is right."""

    stored: int
    missing: int  # accepted, and no order or another customer's
    stored_though_refused: int  # the answer said not_stored
    twice: int  # orders beyond the first of a request
    half_written: int  # without exactly its lines, its one step of history, or its events in order
    events_of_nothing: int

    @property
    def faults(self) -> int:
        return (
            self.missing
            + self.stored_though_refused
            + self.twice
            + self.half_written
            + self.events_of_nothing
        )


def raise_file_limit(files: int) -> None:
    """For this process and what it starts from now on. Raises ValueError where the system's hard
    limit is lower: raise that (`ulimit -Hn`) or ask for fewer requests."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))


async def fire(
    url: str,
    *,
    run: str,
    requests: int,
    hanging_up: float = 0.0,
    fault: Callable[[], None] = lambda: None,
    fault_at: float = 0.1,
) -> Volley:
    """Open all connections, send on all of them, and call `fault` (on a thread) once the share
    `fault_at` is answered. `hanging_up`: share of the clients that leave as soon as they have sent.
    A slow machine opens fewer connections in OPENING_SECONDS; `Volley.requests` says how many.

    `run` is part of each customer's name. Returns when every request has an answer or is cut off.
    """
    volley = Volley(requests)
    clients = _Clients(url, run, hanging_up, volley)
    broken = asyncio.create_task(_break(volley, fault, round(fault_at * requests)))
    everyone = asyncio.gather(*(clients.one(number) for number in range(requests)))
    await asyncio.wait_for(everyone, PATIENCE)
    await broken
    return volley


async def _break(volley: Volley, fault: Callable[[], None], after: int) -> None:
    while volley.answered + len(volley.gone) < volley.requests and volley.answered < after:
        await asyncio.sleep(0.001)
    await asyncio.to_thread(fault)


class _Clients:
    """One connection a request; nothing is sent before all are open."""

    def __init__(self, url: str, run: str, hanging_up: float, volley: Volley) -> None:
        self._address = urlsplit(url)
        self._run = run
        self._hanging_up = hanging_up
        self._volley = volley
        self._opening = asyncio.Semaphore(OPENED_AT_ONCE)
        self._unopened = volley.requests
        self._all_open = asyncio.Event()
        self._until = asyncio.get_running_loop().time() + OPENING_SECONDS

    async def one(self, number: int) -> None:
        async with self._opening:
            too_late = asyncio.get_running_loop().time() > self._until
            if not too_late:
                reader, writer = await asyncio.open_connection(
                    self._address.hostname, self._address.port
                )
        self._unopened -= 1
        if not self._unopened:
            self._all_open.set()
        if too_late:
            self._volley.requests -= 1
            return
        await self._all_open.wait()
        try:
            await self._ask(number, reader, writer)
        finally:
            writer.transport.abort()

    async def _ask(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        volley, customer = self._volley, f"{self._run}-{number}"
        try:
            writer.write(_request(customer, simple=number % 2 == 0))
            await writer.drain()
            if number % 100 < 100 * self._hanging_up:
                volley.gone[customer] = HUNG_UP
                return
            status, body = await _answer(reader)
        except (OSError, EOFError):
            volley.gone[customer] = LOST
            return
        if status in ACCEPTED:
            volley.accepted[customer] = body.get("order_id") or body["orderId"]
        elif status == 503:
            volley.refused[customer] = body["outcome"]
        else:
            volley.unexpected.append(f"{status} {body}")


def _request(customer: str, *, simple: bool) -> bytes:
    item = {"productId": "p1", "quantity": 1, "price": 1.5}
    value = (
        {"user_id": customer, "amount": 42.5}
        if simple
        else {"customerId": customer, "items": [item | {"quantity": 2}, item]}
    )
    body = json.dumps(value).encode()
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    length = int(head.partition("content-length:")[2].split("\r\n", 1)[0])
    value: dict[str, str] = json.loads(await reader.readexactly(length))
    return status, value


_ACCOUNT = """
    WITH ours AS (
        SELECT * FROM orders WHERE starts_with(customer_id, %(run)s || '-')
    ), history AS (
        SELECT order_id, count(*) AS steps, min(event_ids::text)::uuid[] AS event_ids
        FROM order_changes GROUP BY order_id
    ), lines AS (
        SELECT order_id, count(*) AS lines, sum(quantity * price) AS total
        FROM order_lines GROUP BY order_id
    ), events AS (
        SELECT key, array_agg(event_id ORDER BY id) AS event_ids FROM event_outbox GROUP BY key
    )
    SELECT (SELECT count(*) FROM ours),
           (SELECT count(*) FROM unnest(%(customers)s::text[], %(ids)s::uuid[]) AS answered (customer, id)
            WHERE NOT EXISTS (SELECT FROM ours WHERE ours.id = answered.id
                                               AND ours.customer_id = answered.customer)),
           (SELECT count(*) FROM ours WHERE customer_id = ANY(%(refused)s::text[])),
           (SELECT count(*) - count(DISTINCT customer_id) FROM ours),
           (SELECT count(*) FROM ours
            LEFT JOIN history ON history.order_id = ours.id
            LEFT JOIN lines ON lines.order_id = ours.id
            LEFT JOIN events ON events.key = ours.id::text
            WHERE history.steps IS DISTINCT FROM 1
               OR history.event_ids IS DISTINCT FROM events.event_ids
               OR (coalesce(lines.lines, 0), coalesce(lines.total, 42.5))
                  NOT IN ((0, 42.5), (2, ours.total))),
           (SELECT count(*) FROM events WHERE NOT EXISTS
               (SELECT FROM orders WHERE orders.id::text = events.key))
"""


def account_of(database_url: str, run: str, volley: Volley) -> Account:
    """Compare what is stored with what was answered. Call it when no request is under way any more."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            _ACCOUNT,
            {
                "run": run,
                "customers": list(volley.accepted),
                "ids": list(volley.accepted.values()),
                "refused": [
                    customer
                    for customer, outcome in volley.refused.items()
                    if outcome == "not_stored"
                ],
            },
        ).fetchone()
    assert row is not None
    return Account(
        stored=row[0],
        missing=row[1],
        stored_though_refused=row[2],
        twice=row[3],
        half_written=row[4],
        events_of_nothing=row[5],
    )
