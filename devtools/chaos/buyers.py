"""Orders over HTTP: placed, paid, shipped and cancelled, some by two requests at once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from devtools.chaos.order_life import Answered
from devtools.chaos.outcome import WriteOutcome
from loadtest.client import Client, Failed

__all__ = ["Bought", "buy"]

# At most so many orders under way: on a machine that is too slow for the rate requests would queue
# before web, and what is measured then is the queue. A tenth of it is there when nothing is wrong.
SHOP_IS_FULL = 100
RACED_SHARE = 0.3
PAID_SHARE = 0.3
STATUSES = {"pay": "PAID", "ship": "SHIPPED", "cancel": "CANCELLED"}


@dataclass(slots=True)
class Bought:
    """The requests of the buyers and their answers. Of an order without an answer nobody knows the id:
    it is only counted."""

    answered: list[Answered] = field(default_factory=list)
    sent: int = 0
    refused: int = 0  # orders that got no promise

    def summary(self) -> str:
        """For people."""
        changes = [answer for answer in self.answered if answer.to_status != "CREATED"]
        kept = sum(answer.outcome is WriteOutcome.COMMITTED for answer in changes)
        return f"{self.sent} sent, {self.refused} refused; {kept} of {len(changes)} changes made"


def buy(base_url: str, rate: float, stop: threading.Event, bought: Bought) -> None:
    """`rate` orders a second until `stop`; returns when the last answer is there."""
    asyncio.run(_buy(base_url, rate, stop, bought))


async def _buy(base_url: str, rate: float, stop: threading.Event, bought: Bought) -> None:
    chooser = random.Random(1)  # noqa: S311  (a repeatable choice, not a secret)
    lives: set[asyncio.Task[None]] = set()
    client = Client(base_url)
    try:
        due = time.monotonic()
        while not stop.is_set():
            if len(lives) < SHOP_IS_FULL:
                life = _Buyer(client, bought, random.Random(chooser.random()))  # noqa: S311
                task = asyncio.create_task(life.live())
                lives.add(task)
                task.add_done_callback(lives.discard)
            # A load that fell behind does not make up for it: nobody needs the burst.
            due = max(due + 1 / rate, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*lives)
    finally:
        client.close()


class _Buyer:
    """One order from its placing to its last change."""

    def __init__(self, client: Client, bought: Bought, chooser: random.Random) -> None:
        self._client = client
        self._bought = bought
        self._chooser = chooser

    async def live(self) -> None:
        self._bought.sent += 1
        outcome, order_id = await self._post("/orders", _body(self._chooser))
        if not order_id:
            self._bought.refused += 1
            return
        self._bought.answered.append(Answered(order_id, "CREATED", outcome, time.time()))
        choice = self._chooser.random()
        if choice < RACED_SHARE:
            await self._change(order_id, ("pay", "cancel", "pay"))
            await self._change(order_id, ("ship", "cancel"))
        elif choice < RACED_SHARE + PAID_SHARE:
            await self._change(order_id, ("pay",))
            await self._change(order_id, ("ship",))

    async def _change(self, order_id: str, steps: Sequence[str]) -> None:
        """All these at once, after a moment."""
        await asyncio.sleep(self._chooser.uniform(0.1, 1.0))
        await asyncio.gather(*(self._ask(order_id, step) for step in steps))

    async def _ask(self, order_id: str, step: str) -> None:
        outcome, _ = await self._post(f"/orders/{order_id}/{step}", None)
        answer = Answered(order_id, STATUSES[step], outcome, time.time())
        self._bought.answered.append(answer)

    async def _post(self, path: str, body: dict[str, Any] | None) -> tuple[WriteOutcome, str]:
        """What became of it, and the order's id where the answer names one."""
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            reply = await self._client.request(b"POST", path.encode(), content)
            answer = msgspec.json.decode(reply.body)
        except Failed as failure:
            # Refused: it was never sent.
            return (
                WriteOutcome.NOT_STORED if failure.kind == "refused" else WriteOutcome.UNKNOWN,
                "",
            )
        except msgspec.DecodeError:
            return WriteOutcome.UNKNOWN, ""
        if reply.status < 300:
            return WriteOutcome.COMMITTED, answer.get("order_id") or answer.get("orderId") or ""
        if reply.status < 500 or answer.get("outcome") == "not_stored":
            return WriteOutcome.NOT_STORED, ""
        return WriteOutcome.UNKNOWN, ""


def _body(chooser: random.Random) -> dict[str, Any]:
    """Few buyers and products, so that their figures are changed by many orders at once."""
    if chooser.random() < 0.5:
        return {"user_id": f"user-{chooser.randrange(500)}", "amount": _price(chooser)}
    lines = [
        {
            "productId": f"product-{chooser.randrange(20)}",
            "quantity": chooser.randrange(1, 5),
            "price": _price(chooser),
        }
        for _ in range(chooser.randrange(1, 5))
    ]
    return {"customerId": f"customer-{chooser.randrange(500)}", "items": lines}


def _price(chooser: random.Random) -> float:
    return chooser.randrange(1, 20_000) / 100
