"""Orders against a running system: by the clock (open), or one after the other (closed).

Open: a late answer delays nobody else, and what the server makes wait is counted from the moment it
was due, not from when it could be sent ("coordinated omission"). Closed: each of N connections
sends when it has its answer; that finds the capacity and says little of latency.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec
import uvloop

from loadtest.arrivals import evenly, poisson, start_by_the_clock
from loadtest.client import Client, Failed
from loadtest.payloads import Payloads
from loadtest.tally import LoadTally

__all__ = ["ARRIVALS", "GeneratorPlan", "generate"]

ARRIVALS = ("poisson", "even")
ACCEPTED = (200, 201)


class _Answer(msgspec.Struct):
    """An accepted order, of either body."""

    order_id: UUID | None = None
    orderId: UUID | None = None


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorPlan:
    """What to send. `closed` 0: open, `rate` a second; else that many connections at full speed.

    Every request has the id `<run>-<number>`, by which its order is found again.
    """

    url: str
    seconds: float
    rate: float = 0.0
    closed: int = 0
    kind: str = "orders"
    customers: int = 5000
    seed: int = 1
    arrivals: str = "poisson"
    max_in_flight: int = 2000
    timeout: float = 30.0  # seconds
    headers: Mapping[str, str] = field(default_factory=dict)
    run: str = field(default_factory=lambda: f"load-{uuid4().hex[:12]}")


def generate(
    plan: GeneratorPlan, *, on_second: Callable[[LoadTally], None] = lambda _: None
) -> LoadTally:
    """Send the plan's orders and return when the last answer is here; calls `on_second` about once
    a second. SIGINT ends the sending early, a second one everything."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_generate(plan, on_second))


async def _generate(plan: GeneratorPlan, on_second: Callable[[LoadTally], None]) -> LoadTally:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    client = Client(plan.url, timeout=plan.timeout, headers=plan.headers)
    tally = LoadTally(planned_seconds=plan.seconds)

    def end() -> None:
        tally.end_early()
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, end)
    watcher = asyncio.create_task(_every_second(tally, on_second))
    try:
        orders = _Orders(plan, client, tally)
        if plan.closed:
            await _closed(plan, orders, stop)
        else:
            await _open(plan, orders, stop)
    finally:
        watcher.cancel()
        client.close()
        loop.remove_signal_handler(signal.SIGINT)
    return tally


async def _open(plan: GeneratorPlan, orders: _Orders, stop: asyncio.Event) -> None:
    await start_by_the_clock(
        _due(plan),
        orders.place,
        at_most=plan.max_in_flight,
        not_started=orders.tally.note_not_sent,
        stop=stop,
    )


def _due(plan: GeneratorPlan) -> Iterator[float]:
    if plan.arrivals == "even":
        offsets = evenly(plan.rate)
    else:
        chooser = random.Random(f"arrivals {plan.seed}")  # noqa: S311  (a repeatable choice)
        offsets = poisson(plan.rate, chooser)
    return itertools.takewhile(lambda offset: offset < plan.seconds, offsets)


async def _closed(plan: GeneratorPlan, orders: _Orders, stop: asyncio.Event) -> None:
    end = orders.tally.begin + plan.seconds

    async def connection() -> None:
        while (now := time.perf_counter()) < end and not stop.is_set():
            if await orders.place(now):
                continue
            await asyncio.sleep(0.01)  # a server that refuses at once must not become a hot loop

    await asyncio.gather(*(connection() for _ in range(plan.closed)))


class _Orders:
    """Places orders, one a call."""

    def __init__(self, plan: GeneratorPlan, client: Client, tally: LoadTally) -> None:
        self.tally = tally
        self._client = client
        self._payloads = Payloads(seed=plan.seed, kind=plan.kind, customers=plan.customers)
        self._numbers = itertools.count(1)
        self._id_line = f"X-Request-ID: {plan.run}-%d\r\n".encode()

    async def place(self, intended: float) -> bool:
        """One order; whether it was accepted."""
        body = self._payloads.next().body
        sent = time.perf_counter()
        self.tally.note_sent(intended, sent)
        try:
            status, answer = await self._client.request(
                b"POST", b"/orders", body, self._id_line % next(self._numbers)
            )
        except Failed as failure:
            self.tally.note_error(intended, failure.kind)
            return False
        if status not in ACCEPTED:
            self.tally.note_error(intended, f"status {status}")
            return False
        try:
            decoded = _decode(answer)
        except msgspec.DecodeError:
            decoded = _Answer()
        order_id = decoded.order_id or decoded.orderId
        if order_id is None:
            self.tally.note_error(intended, "no order id")
            return False
        self.tally.note_accepted(intended, sent, order_id)
        return True


async def _every_second(tally: LoadTally, on_second: Callable[[LoadTally], None]) -> None:
    while True:
        await asyncio.sleep(1.0)
        on_second(tally)
