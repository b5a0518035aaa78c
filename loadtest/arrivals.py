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
    stop: asyncio.Event | None = None,
) -> None:
    """Start `work` at every moment of `due` (seconds from now) and return when all of it is done.

    `work` gets its intended moment on time.perf_counter, from which its latency counts. When
    `at_most` are under way (0: any number), what is due is not started, and `not_started` is called.
    `stop` ends it early; what is under way is still waited for. An error of `work` ends it too.
    """
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        under_way: set[asyncio.Task[object]] = set()
        for offset in due:
            intended = begin + offset
            while (delay := intended - time.perf_counter()) > 0:
                if stop is None:
                    await asyncio.sleep(max(delay, TICK))
                else:
                    await _sleep_or(stop, max(delay, TICK))
                    if stop.is_set():
                        return
            if stop is not None and stop.is_set():
                return
            if at_most and len(under_way) >= at_most:
                not_started(intended)
                await asyncio.sleep(0)
                continue
            task = group.create_task(work(intended))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(0)  # it sends now, and answers are read in between


async def _sleep_or(stop: asyncio.Event, seconds: float) -> None:
    """A short sleep is not worth a second task: the event is looked at after it."""
    if seconds < 0.1:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
