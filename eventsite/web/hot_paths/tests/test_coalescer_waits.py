"""The queue of the coalescer is bounded in length and in time, and its end answers every request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from eventsite.web.hot_paths import metrics
from eventsite.web.hot_paths.coalescer import LEAST_SECONDS, Coalescer
from eventsite.web.hot_paths.tests.held_backend import (
    Backend,
    by_the_clock,
    passed,
    submitted,
)
from outbox.database import patience
from outbox.database.unit_of_work import NotStored, OutcomeUnknown, TurnedAway


def test_the_queue_has_a_bound() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", max_batch=1, max_waiting=3)
        tasks = await submitted(coalescer, [0])
        await asyncio.sleep(0.05)
        tasks += await submitted(coalescer, [1, 2, 3])
        with pytest.raises(NotStored, match="Too many"):
            coalescer.submit(4)
        backend.open()
        await asyncio.gather(*tasks)
        assert backend.stored == [0, 1, 2, 3]

    asyncio.run(scenario())


def test_who_has_waited_too_long_is_told_so_while_a_batch_hangs() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", patience=10)
        [under_way] = await submitted(coalescer, [0])
        await passed(0)  # the first batch is being stored, and hangs
        [early] = await submitted(coalescer, [1])
        await passed(4)
        [late] = await submitted(coalescer, [2])
        await passed(5.9)
        assert not early.done()
        await passed(0.1)
        with pytest.raises(NotStored, match="too long"):
            early.result()
        assert not late.done()
        await passed(3.9)
        assert not late.done()
        await passed(0.1)
        with pytest.raises(NotStored, match="too long"):
            late.result()
        [last] = await submitted(coalescer, [3])
        assert not under_way.done()  # nobody knows what will become of it
        backend.open()
        assert [await under_way, await last] == ["stored 0", "stored 3"]
        assert backend.batches == [[0], [3]]

    by_the_clock(scenario())


def test_what_waits_is_measured() -> None:
    """Also while a batch hangs, and to its end."""

    def measured() -> list[float]:
        gauges = metrics.WAITING, metrics.OLDEST
        return [round(gauge.labels("measured")._value.get(), 6) for gauge in gauges]

    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="measured", patience=10)
        [first] = await submitted(coalescer, [0])
        await passed(0.5)
        rest = await submitted(coalescer, [1, 2])
        await passed(0.6)
        assert measured() == [2, 1.1]
        await passed(5)
        assert measured() == [2, 6.1]
        backend.open(1)
        await first
        await passed(1)
        assert measured() == [0, 6.6]  # the rest is under way
        backend.open()
        await asyncio.gather(*rest)
        await passed(1)
        assert measured() == [0, 0]
        metrics.WAITING.labels("measured").set(7)
        await passed(5)
        assert measured() == [7, 0]  # nobody looks while nothing is to be done
        await asyncio.gather(*await submitted(coalescer, [3, 4]))
        await passed(2)
        assert measured() == [0, 0]
        await coalescer.close()

    by_the_clock(scenario())


def test_a_process_that_ends_leaves_nothing_in_the_gauges() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="ending", max_batch=1, last_patience=0.05)
        await submitted(coalescer, [0, 1])
        for gauge in (metrics.WAITING, metrics.OLDEST):
            gauge.labels("ending").set(7)
        await coalescer.close()
        for gauge in (metrics.WAITING, metrics.OLDEST):
            assert gauge.labels("ending")._value.get() == 0
        backend.open()

    asyncio.run(scenario())


def test_the_oldest_go_first_whoever_keeps_coming() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", max_batch=4)
        waiting = await submitted(coalescer, range(10))
        for batch in range(10):
            backend.open(1)
            await waiting[4 * batch + 3]
            waiting += await submitted(coalescer, range(len(waiting), len(waiting) + 4))
        assert backend.batches[:10] == [list(range(4 * n, 4 * n + 4)) for n in range(10)]
        backend.open()
        await coalescer.close()

    asyncio.run(scenario())


def test_a_batch_that_hangs_holds_up_no_other_path() -> None:
    async def scenario() -> None:
        hanging, well = Backend(), Backend()
        writes = Coalescer(hanging.perform, name="writes")
        reads = Coalescer(well.perform, name="reads")
        [held] = await submitted(writes, [0])
        well.open()
        assert await reads.submit(1).future == "stored 1"
        assert not held.done()
        hanging.open()
        assert await held == "stored 0"

    asyncio.run(scenario())


def test_a_batch_that_does_not_come_back_is_unknown_and_the_next_one_goes() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        backend = Backend()
        backend.open()
        coalescer = Coalescer(backend.perform, name="test")
        outcomes = await asyncio.gather(
            *await submitted(coalescer, [1, -4]), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 2
        await asyncio.sleep(0)
        assert await coalescer.submit(5).future == "stored 5"
        assert backend.stored == [5]

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
            coalescer.submit(9)
        backend.open()
        await closing
        assert all(task.done() for task in tasks)
        assert backend.stored == list(range(5))

    asyncio.run(scenario())


def test_close_does_not_wait_for_what_hangs() -> None:
    async def scenario() -> None:
        async def hang(numbers: Sequence[int]) -> list[str]:
            await asyncio.Event().wait()
            return []

        coalescer = Coalescer(hang, name="test", max_batch=2, last_patience=0.05)
        tasks = [coalescer.submit(number).future for number in range(3)]
        await asyncio.sleep(0.05)
        await coalescer.close()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in told] == [OutcomeUnknown, OutcomeUnknown, TurnedAway]

    asyncio.run(scenario())


def test_close_of_one_that_has_nothing_to_do() -> None:
    async def scenario() -> None:
        coalescer = Coalescer(Backend().perform, name="test")
        await coalescer.close()
        with pytest.raises(NotStored, match="stopping"):
            coalescer.submit(1)

    asyncio.run(scenario())


@pytest.mark.parametrize(("waited", "left"), [(5.0, 3.0), (7.9, LEAST_SECONDS)])
def test_a_batch_may_wait_for_the_database_as_long_as_its_oldest(
    waited: float, left: float
) -> None:
    async def scenario() -> None:
        found: list[float | None] = []
        gate = asyncio.Event()

        async def perform(numbers: Sequence[int]) -> list[str]:
            found.append(patience.left())
            await gate.wait()
            return ["stored"] * len(numbers)

        coalescer = Coalescer(perform, name="test", patience=8)
        tasks = await submitted(coalescer, [0])
        tasks += await submitted(coalescer, [1])
        await passed(waited)
        tasks += await submitted(coalescer, [2])
        gate.set()
        assert await asyncio.gather(*tasks) == ["stored"] * 3
        assert found == [pytest.approx(8, abs=0.5), pytest.approx(left, abs=0.5)]
        assert patience.left() is None
        await coalescer.close()

    by_the_clock(scenario())
