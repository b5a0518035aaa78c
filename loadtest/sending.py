"""What every profile has alike: the plan of its requests, and sending them by the clock (open), or one
after the other (closed).

Open: a late answer delays nobody else, and what the server makes wait is counted from the moment it
was due, not from when it could be sent ("coordinated omission"). Closed: each of N connections
sends when it has its answer; that finds the capacity and says little of latency.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from loadtest.arrivals import evenly, poisson, start_by_the_clock
from loadtest.client import Client

__all__ = ["ARRIVALS", "RequestTally", "RunPlan", "for_each", "send_all"]

ARRIVALS = ("poisson", "even")
AT_ONCE = 16  # requests of for_each
Item = TypeVar("Item")
Tally = TypeVar("Tally", bound="RequestTally")
Send = Callable[[float], Coroutine[Any, Any, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """`closed` 0: open, `rate` requests a second; else that many connections at full speed."""

    url: str
    seconds: float
    rate: float = 0.0
    closed: int = 0
    seed: int = 1
    arrivals: str = "poisson"
    max_in_flight: int = 2000
    timeout: float = 30.0  # seconds
    headers: Mapping[str, str] = field(default_factory=dict)
    run: str = field(default_factory=lambda: f"load-{uuid4().hex[:12]}")

    def client(self) -> Client:
        """A client of the server under load."""
        return Client(self.url, timeout=self.timeout, headers=self.headers)


class RequestTally:
    """Requests whose moment came (`due`), those of them that could not be sent, and failures by kind.
    `seconds`: how long was sent; `epoch`: what a moment of time.perf_counter lacks to be one since the epoch."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.due = self.not_sent = self.under_way = 0
        self.begin = time.perf_counter()
        self.epoch = time.time() - self.begin
        self.seconds = 0.0
        self.ended_early = False

    def note_not_sent(self, intended: float) -> None:
        """Too many were under way."""
        self.due += 1
        self.not_sent += 1

    def values(self) -> dict[str, float]:
        """Metrics of thresholds, as far as the run knows them: milliseconds, counts, requests a second."""
        raise NotImplementedError

    def shares(self) -> dict[str, float]:
        """The metrics of what was not well answered."""
        errors, due = self.errors.total(), max(1, self.due)
        return {
            "errors": errors,
            "errors_percent": 100 * errors / due,
            "not_sent": self.not_sent,
            "not_sent_percent": 100 * self.not_sent / due,
        }


async def send_all(
    plan: RunPlan, send: Send, tally: Tally, on_second: Callable[[Tally], None]
) -> None:
    """Call `send` for each request, with the moment it is due on time.perf_counter; it says whether it
    was well answered. Calls `on_second` about once a second meanwhile. Returns with the last answer."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(1.0)
            on_second(tally)

    watcher = asyncio.create_task(repeat())
    try:
        await (_closed if plan.closed else _open)(plan, send, tally)
    finally:
        watcher.cancel()


async def _closed(plan: RunPlan, send: Send, tally: RequestTally) -> None:
    end = time.perf_counter() + plan.seconds

    async def connection() -> None:
        while (now := time.perf_counter()) < end and not tally.ended_early:
            if not await send(now):
                await asyncio.sleep(0.01)  # a server that refuses at once: no hot loop

    await asyncio.gather(*(connection() for _ in range(plan.closed)))


async def _open(plan: RunPlan, send: Send, tally: RequestTally) -> None:
    chooser = random.Random(f"arrivals {plan.seed}")  # noqa: S311  (a repeatable choice)
    offsets = evenly(plan.rate) if plan.arrivals == "even" else poisson(plan.rate, chooser)
    await start_by_the_clock(
        itertools.takewhile(lambda offset: offset < plan.seconds, offsets),
        send,
        at_most=plan.max_in_flight,
        not_started=tally.note_not_sent,
        stopped=lambda: tally.ended_early,
    )


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, object]]
) -> None:
    """Do the work for each, a few at once."""
    remaining = iter(items)

    async def one_by_one() -> None:
        for item in remaining:
            await work(item)

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))
