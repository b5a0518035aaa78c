"""When requests are due, and starting each at its time whether or not earlier ones are answered."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

__all__ = ["evenly", "poisson", "start_by_the_clock"]

# The event loop's timers have milliseconds; what is due within one goes out together. A finer
# clock would have to spin, and take the processor from what is measured.
TICK = 0.001
LOOK = 0.1  # seconds; after so long at the latest a sleep looks whether the run is stopped


def evenly(rate: float) -> Iterator[float]:
    """Seconds from the start: `rate` a second, all equally far apart."""
    return (number / rate for number in itertools.count())


def poisson(rate: float, chooser: random.Random) -> Iterator[float]:
    """Seconds from the start: `rate` a second on average, each independent of the others, as many
    callers who know nothing of each other make them. Bursts and gaps are part of it."""
    at = 0.0
    while True:
        at += chooser.expovariate(rate)
        yield at


async def start_by_the_clock(
    due: Iterable[float],
    work: Callable[[float], Coroutine[Any, Any, object]],
    *,
    at_most: int = 0,
    not_started: Callable[[float], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Start `work` at every moment of `due` (seconds from now) and return when all of it is done.

    `work` gets its intended moment on time.perf_counter, from which its latency counts. When
    `at_most` are under way (0: any number), what is due is not started, and `not_started` is called.
    `stopped` ends it early; what is under way is still waited for. An error of `work` ends it too.
    """
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        under_way: set[asyncio.Task[object]] = set()
        for offset in due:
            intended = begin + offset
            while (delay := intended - time.perf_counter()) > 0 and not stopped():
                await asyncio.sleep(min(max(delay, TICK), LOOK))
            if stopped():
                return
            if at_most and len(under_way) >= at_most:
                not_started(intended)
                await asyncio.sleep(0)
                continue
            task = group.create_task(work(intended))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(0)  # it sends now, and answers are read in between
