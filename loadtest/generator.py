"""Orders against a running system, each found again by its id."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import msgspec

from loadtest.client import Client, Failed, run_with
from loadtest.payloads import Payloads
from loadtest.sending import RunPlan, Send, send_all
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
    client = plan.client()
    return run_with(client, _generate(plan, client, on_second))


async def _generate(
    plan: GeneratorPlan, client: Client, on_second: Callable[[LoadTally], None]
) -> LoadTally:
    loop, tally = asyncio.get_running_loop(), LoadTally(planned_seconds=plan.seconds)

    def end() -> None:
        tally.end_early()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, end)
    try:
        await send_all(plan, _placing(plan, client, tally), tally, on_second)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return tally


def _placing(plan: GeneratorPlan, client: Client, tally: LoadTally) -> Send:
    payloads = Payloads(seed=plan.seed, kind=plan.kind, customers=plan.customers)
    numbers, id_line = itertools.count(1), f"X-Request-ID: {plan.run}-%d\r\n".encode()

    async def place(intended: float) -> bool:
        body, sent = payloads.next().body, time.perf_counter()
        tally.note_sent(intended, sent)
        try:
            status, answer = await client.request(
                b"POST", b"/orders", body, id_line % next(numbers)
            )
            order_id = _order_id(status, answer)
        except Failed as failure:
            tally.note_error(intended, failure.kind)
            return False
        tally.note_accepted(intended, sent, order_id)
        return True

    return place


def _order_id(status: int, answer: bytes) -> UUID:
    """Raises Failed for an answer that accepts no order."""
    if status not in ACCEPTED:
        raise Failed(f"status {status}")
    with suppress(msgspec.DecodeError):
        decoded = _decode(answer)
        if found := decoded.order_id or decoded.orderId:
            return found
    raise Failed("no order id")
