"""The coalescer with a backend whose batches the test lets through one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from eventsite.hot_paths.coalescer import Coalescer, Refused
from outbox.services import NotStored, OutcomeUnknown


class Backend:
    """Stores numbers. A batch waits for `gate`; -1 is refused, -2 finds the database away, -3
    loses the connection at COMMIT."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.stored: list[int] = []

    def perform(self, numbers: Sequence[int]) -> list[str]:
        assert self.gate.acquire(timeout=10)
        self.batches.append(list(numbers))
        if -2 in numbers:
            raise NotStored("away")
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
    tasks = [coalescer.submit(number) for number in numbers]
    await asyncio.sleep(0)
    return tasks


def test_alone_at_once_and_the_rest_together() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        tasks = await submitted(coalescer, [0])
        await asyncio.sleep(0.05)  # the first batch is being stored
        tasks += await submitted(coalescer, range(1, 30))
        backend.open()
        assert await asyncio.gather(*tasks) == [f"stored {number}" for number in range(30)]
        assert backend.batches == [[0], list(range(1, 30))]
        await coalescer.close()

    asyncio.run(scenario())


def test_a_batch_has_a_bound() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", max_batch=10)
        tasks = await submitted(coalescer, range(25))
        backend.open()
        await asyncio.gather(*tasks)
        assert [len(batch) for batch in backend.batches] == [10, 10, 5]
        assert backend.stored == list(range(25))

    asyncio.run(scenario())


@pytest.mark.parametrize("place", [0, 7, 15])
def test_only_the_culprit_is_refused(place: int) -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        numbers = list(range(16))
        numbers[place] = -1
        tasks = await submitted(coalescer, numbers)
        backend.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        refused = outcomes.pop(place)
        assert isinstance(refused, Refused)
        assert isinstance(refused.__cause__, ValueError)
        numbers.pop(place)
        assert outcomes == [f"stored {number}" for number in numbers]
        assert backend.stored == numbers

    asyncio.run(scenario())


@pytest.mark.parametrize(("number", "error"), [(-2, NotStored), (-3, OutcomeUnknown)])
def test_a_database_that_fails_is_told_to_all_and_not_asked_again(
    number: int, error: type[Exception]
) -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        tasks = await submitted(coalescer, [1, number, 2])
        backend.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [error] * 3
        assert len(backend.batches) == 1
        assert await coalescer.submit(5) == "stored 5"

    asyncio.run(scenario())


def test_the_queue_has_a_bound() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", max_batch=1, max_waiting=3)
        tasks = await submitted(coalescer, [0])
        await asyncio.sleep(0.05)
        tasks += await submitted(coalescer, [1, 2, 3])
        with pytest.raises(NotStored, match="Too many"):
            await coalescer.submit(4)
        backend.open()
        await asyncio.gather(*tasks)
        assert backend.stored == [0, 1, 2, 3]

    asyncio.run(scenario())


def test_who_has_waited_too_long_is_not_stored() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", patience=0.05)
        first = await submitted(coalescer, [0])
        await asyncio.sleep(0.02)
        late = await submitted(coalescer, [1])
        await asyncio.sleep(0.2)
        backend.open()
        assert await first[0] == "stored 0"
        with pytest.raises(NotStored, match="too long"):
            await late[0]
        assert backend.stored == [0]

    asyncio.run(scenario())


def test_who_hangs_up_takes_nobody_along() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        tasks = await submitted(coalescer, [0])
        await asyncio.sleep(0.05)
        tasks += await submitted(coalescer, [1, 2])
        tasks[0].cancel()  # in the batch that is being stored
        tasks[1].cancel()  # still waiting
        await asyncio.sleep(0)
        backend.open()
        assert await tasks[2] == "stored 2"
        assert backend.stored == [0, 2]

    asyncio.run(scenario())


def test_close_stores_what_was_taken_and_takes_no_more() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", max_batch=2)
        tasks = await submitted(coalescer, range(5))
        closing = asyncio.create_task(coalescer.close())
        await asyncio.sleep(0.05)
        with pytest.raises(NotStored, match="stopping"):
            await coalescer.submit(9)
        backend.open()
        await closing
        assert all(task.done() for task in tasks)
        assert backend.stored == list(range(5))

    asyncio.run(scenario())


def test_nobody_waits_for_ever_when_a_backend_breaks_its_word() -> None:
    async def scenario() -> None:
        coalescer: Coalescer[int, str] = Coalescer(lambda _: ["one too many"] * 2, name="test")
        with pytest.raises(OutcomeUnknown):
            await coalescer.submit(1)

    asyncio.run(scenario())
