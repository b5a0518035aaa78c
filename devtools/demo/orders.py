"""Orders over HTTP by the clock, each with the life that follows: paid later, or cancelled.

For the demo and bench-path, which want every answer; `generate_load` sends orders alone, in
any number.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import uvloop

from loadtest.arrivals import evenly, start_by_the_clock
from loadtest.client import Client, Failed
from loadtest.payloads import Payload, Payloads

__all__ = ["LoadPlan", "LoadResult", "OrderAnswer", "run_load"]

ACCEPTED = (200, 201)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """`rate` orders a second until `orders` are sent. Shares of them are paid and cancelled later,
    and of the paid ones a share is shipped, which nothing follows."""

    orders: int
    rate: float
    paid_share: float = 1 / 3
    shipped_share: float = 1 / 4
    cancelled_share: float = 0.05
    seed: int = 1


# As many as there are orders, all kept: none of them is the collector's business.
class OrderAnswer(msgspec.Struct, frozen=True, gc=False):
    """One answered or failed request. `latency`: seconds from the intended start; `status` 0: none;
    `lines`: how many the order has."""

    operation: str
    status: int
    latency: float
    order_id: str = ""
    error: str = ""
    lines: int = 0


@dataclass(slots=True)
class LoadResult:
    """What came back, as it came."""

    started: float = 0.0
    sent: int = 0
    placed: int = 0  # orders answered with 200 or 201
    answers: list[OrderAnswer] = field(default_factory=list)

    def accepted(self) -> list[OrderAnswer]:
        """The answers that promise an order."""
        return [a for a in self.answers if a.operation == "place" and a.status in ACCEPTED]

    def changes(self) -> list[OrderAnswer]:
        """The answers to payments, shipments and cancellations, good or bad: each attempt has one."""
        return [a for a in self.answers if a.operation != "place"]

    def stock_events(self) -> int:
        """How many the promised orders and changes have made: one a line that is reserved or released."""
        cancelled = [a for a in self.changes() if a.operation == "cancel" and a.status in ACCEPTED]
        return sum(answer.lines for answer in (*self.accepted(), *cancelled))


def run_load(
    base_url: str, plan: LoadPlan, *, on_progress: Callable[[LoadResult], None] = lambda _: None
) -> LoadResult:
    """Send the plan's orders and what follows them; returns when the last answer is there."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(base_url, plan, on_progress))


async def _run(
    base_url: str, plan: LoadPlan, on_progress: Callable[[LoadResult], None]
) -> LoadResult:
    seeds = random.Random(plan.seed)  # noqa: S311  (a repeatable choice, not a secret)
    result = LoadResult(started=time.perf_counter())
    client = Client(base_url)
    payloads = Payloads(seed=plan.seed, kind="mixed")

    async def live(intended: float) -> None:
        life = _Life(client, result, intended, seeds.random(), plan)
        result.sent += 1
        on_progress(result)
        await life.run(payloads.next())

    try:
        await start_by_the_clock(itertools.islice(evenly(plan.rate), plan.orders), live)
    finally:
        client.close()
    on_progress(result)
    return result


class _Life:
    """One order from its placing to its last change."""

    def __init__(
        self,
        client: Client,
        result: LoadResult,
        intended: float,
        seed: float,
        plan: LoadPlan,
    ) -> None:
        self._client = client
        self._result = result
        self._intended = intended
        self._seed = seed
        self._plan = plan
        self._lines = 0

    async def run(self, payload: Payload) -> None:
        body, self._lines = payload
        order_id = await self._post("place", "/orders", body, self._intended)
        if order_id and (self._plan.paid_share or self._plan.cancelled_share):
            await self._go_on(order_id, random.Random(self._seed))  # noqa: S311

    async def _go_on(self, order_id: str, chooser: random.Random) -> None:
        if chooser.random() < self._plan.paid_share:
            await self._later("pay", order_id, chooser)
            if chooser.random() < self._plan.shipped_share:
                await self._later("ship", order_id, chooser)
                return
        if chooser.random() < self._plan.cancelled_share:
            await self._later("cancel", order_id, chooser)

    async def _later(self, operation: str, order_id: str, chooser: random.Random) -> None:
        await asyncio.sleep(chooser.uniform(0.2, 1.0))
        await self._post(operation, f"/orders/{order_id}/{operation}", None, time.perf_counter())

    async def _post(self, operation: str, path: str, body: bytes | None, intended: float) -> str:
        """The order's id, or an empty string if nothing was promised."""
        status, order_id, error = 0, "", ""
        try:
            reply = await self._client.request(b"POST", path.encode(), body or b"")
            status = reply.status
            answer = msgspec.json.decode(reply.body)
            order_id = answer.get("order_id") or answer.get("orderId") or ""
            error = answer.get("error", "")
        except (Failed, msgspec.DecodeError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        latency = time.perf_counter() - intended
        self._result.answers.append(
            OrderAnswer(operation, status, latency, order_id, error, self._lines)
        )
        self._result.placed += operation == "place" and status in ACCEPTED
        return order_id
