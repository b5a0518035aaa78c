"""Orders against a running system, each found again by its id."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import msgspec
import uvloop

from loadtest.client import Client, Failed
from loadtest.payloads import Payloads
from loadtest.sending import RunPlan, each_second, send_all
from loadtest.tally import LoadTally

__all__ = ["GeneratorPlan", "generate"]

ACCEPTED = (200, 201)


class _Answer(msgspec.Struct):
    """An accepted order, of either body."""

    order_id: UUID | None = None
    orderId: UUID | None = None


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorPlan(RunPlan):
    """What to send. Every request has the id `<run>-<number>`, by which its order is found again."""

    kind: str = "orders"
    customers: int = 5000


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
    try:
        orders = _Orders(plan, client, tally)
        async with each_second(partial(on_second, tally)):
            await send_all(plan, orders.place, not_started=tally.note_not_sent, stop=stop)
    finally:
        client.close()
        loop.remove_signal_handler(signal.SIGINT)
    return tally


class _Orders:
    """Places orders, one a call."""

    def __init__(self, plan: GeneratorPlan, client: Client, tally: LoadTally) -> None:
        self._tally = tally
        self._client = client
        self._payloads = Payloads(seed=plan.seed, kind=plan.kind, customers=plan.customers)
        self._numbers = itertools.count(1)
        self._id_line = f"X-Request-ID: {plan.run}-%d\r\n".encode()

    async def place(self, intended: float) -> bool:
        """One order; whether it was accepted."""
        body = self._payloads.next().body
        sent = time.perf_counter()
        self._tally.note_sent(intended, sent)
        try:
            status, answer = await self._client.request(
                b"POST", b"/orders", body, self._id_line % next(self._numbers)
            )
        except Failed as failure:
            self._tally.note_error(intended, failure.kind)
            return False
        if status not in ACCEPTED:
            self._tally.note_error(intended, f"status {status}")
            return False
        try:
            decoded = _decode(answer)
        except msgspec.DecodeError:
            decoded = _Answer()
        order_id = decoded.order_id or decoded.orderId
        if order_id is None:
            self._tally.note_error(intended, "no order id")
            return False
        self._tally.note_accepted(intended, sent, order_id)
        return True
