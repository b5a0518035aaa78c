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
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from loadtest.arrivals import evenly, poisson, start_by_the_clock

__all__ = ["ARRIVALS", "RequestTally", "RunPlan", "each_second", "send_all"]

ARRIVALS = ("poisson", "even")


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


class RequestTally:
    """Requests whose moment came (`due`), those of them that could not be sent, and failures by kind."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.due = self.not_sent = 0
        self.begin = time.perf_counter()

    def note_not_sent(self, intended: float) -> None:
        """Too many were under way."""
        self.due += 1
        self.not_sent += 1

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
    plan: RunPlan,
    send: Callable[[float], Coroutine[Any, Any, bool]],
    *,
    not_started: Callable[[float], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Call `send` for each request, with the moment it is due on time.perf_counter; it says whether it
    was well answered. Returns with the last answer."""
    if plan.closed:
        end = time.perf_counter() + plan.seconds

        async def connection() -> None:
            while (now := time.perf_counter()) < end and not (stop and stop.is_set()):
                if not await send(now):
                    await asyncio.sleep(0.01)  # a server that refuses at once: no hot loop

        await asyncio.gather(*(connection() for _ in range(plan.closed)))
        return
    chooser = random.Random(f"arrivals {plan.seed}")  # noqa: S311  (a repeatable choice)
    offsets = evenly(plan.rate) if plan.arrivals == "even" else poisson(plan.rate, chooser)
    await start_by_the_clock(
        itertools.takewhile(lambda offset: offset < plan.seconds, offsets),
        send,
        at_most=plan.max_in_flight,
        not_started=not_started,
        stop=stop,
    )


@asynccontextmanager
async def each_second(call: Callable[[], None]) -> AsyncIterator[None]:
    """Calls it about once a second meanwhile."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(1.0)
            call()

    watcher = asyncio.create_task(repeat())
    try:
        yield
    finally:
        watcher.cancel()
