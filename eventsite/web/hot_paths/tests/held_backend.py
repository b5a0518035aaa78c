"""A backend of the coalescer whose batches the test lets through, and an event loop whose clock it moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from devtools.testing.patience import PATIENCE
from eventsite.web.hot_paths.coalescer import Coalescer
from outbox.database.unit_of_work import NotStored, OutcomeUnknown


class Clock(asyncio.SelectorEventLoop):
    """An event loop in which time passes when the test says so."""

    now = 1000.0

    def time(self) -> float:
        return self.now


async def passed(seconds: float) -> None:
    """Let time pass, and what is due happen."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    loop.now += seconds
    for _ in range(3):
        await asyncio.sleep(0)


def by_the_clock(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(scenario)


class Gone(BaseException):
    """The thread is torn down in the middle of a batch."""


class Backend:
    """Stores numbers on a thread. A batch waits for `gate`; -1 is refused, -2 finds the database away, -3
    loses the connection at COMMIT, -4 does not come back, -5 is refused by an SQLSTATE that is of its
    transaction alone."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.stored: list[int] = []

    async def perform(self, numbers: Sequence[int]) -> list[str]:
        return await asyncio.to_thread(self.store, numbers)

    def store(self, numbers: Sequence[int]) -> list[str]:
        assert self.gate.acquire(timeout=PATIENCE)
        self.batches.append(list(numbers))
        if -4 in numbers:
            raise Gone
        if -2 in numbers:
            raise NotStored("away")
        if -5 in numbers:
            raise NotStored("deadlock", refused=True)
        if -1 in numbers:
            raise ValueError("refused")
        self.stored += numbers
        if -3 in numbers:
            raise OutcomeUnknown("cut")
        return [f"stored {number}" for number in numbers]

    def open(self, batches: int = 1000) -> None:
        self.gate.release(batches)


async def submitted(
    coalescer: Coalescer[int, str], numbers: Sequence[int]
) -> list[asyncio.Future[str]]:
    """What each number will become, all of them handed in."""
    tasks = [coalescer.submit(number).future for number in numbers]
    await asyncio.sleep(0)
    return tasks
