"""Batches of the coalescer: who is in one, how large it is, and who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from eventsite.web.hot_paths.coalescer import BatchRefused, Coalescer
from eventsite.web.hot_paths.tests.held_backend import (
    Backend,
    submitted,
)
from outbox.database.unit_of_work import NotStored, OutcomeUnknown


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


def test_a_batch_has_a_weight() -> None:
    """What is too heavy goes alone, and in its turn."""

    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test", max_weight=10)
        weights = [4, 4, 4, 11, 5, 5, 1, 100]
        tasks = [coalescer.submit(number, weight).future for number, weight in enumerate(weights)]
        backend.open()
        await asyncio.gather(*tasks)
        assert backend.batches == [[0, 1], [2], [3], [4, 5], [6], [7]]

    asyncio.run(scenario())


@pytest.mark.parametrize("places", [[0], [7], [15], [3, 4], [0, 15], [1, 5, 6, 11], range(16)])
def test_only_the_culprits_are_refused(places: Sequence[int]) -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        numbers = [-1 if number in places else number for number in range(16)]
        tasks = await submitted(coalescer, numbers)
        backend.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number, outcome in zip(numbers, outcomes, strict=True):
            if number == -1:
                assert isinstance(outcome, BatchRefused)
                assert isinstance(outcome.__cause__, ValueError)
            else:
                assert outcome == f"stored {number}"
        assert backend.stored == [number for number in numbers if number != -1]

    asyncio.run(scenario())


def test_what_the_server_refuses_of_one_transaction_is_told_to_the_culprit_alone() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        tasks = await submitted(coalescer, [0, 1, -5, 3])
        backend.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [str, str, NotStored, str]
        assert backend.stored == [0, 1, 3]

    asyncio.run(scenario())


def test_until_it_has_begun_nothing_can_be_stored() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        first = coalescer.submit(0)
        await asyncio.sleep(0.05)
        second = coalescer.submit(1)
        assert (first.begun, second.begun) == (True, False)
        second.future.cancel()
        backend.open()
        await first.future
        await coalescer.close()
        assert not second.begun
        assert backend.stored == [0]

    asyncio.run(scenario())


def test_a_database_that_goes_away_while_a_culprit_is_looked_for() -> None:
    async def scenario() -> None:
        backend = Backend()
        coalescer = Coalescer(backend.perform, name="test")
        tasks = await submitted(coalescer, [1, 2, -1, -3])
        backend.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        # -1 and -3 came in one batch first, so nothing was stored; then each half alone
        assert outcomes[:2] == ["stored 1", "stored 2"]
        assert [type(outcome) for outcome in outcomes[2:]] == [BatchRefused, OutcomeUnknown]
        assert backend.batches == [[1, 2, -1, -3], [1, 2], [-1, -3], [-1], [-3]]

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
        assert await coalescer.submit(5).future == "stored 5"

    asyncio.run(scenario())


def test_nobody_waits_for_ever_when_a_backend_breaks_its_word() -> None:
    async def scenario() -> None:
        async def perform(numbers: Sequence[int]) -> list[str]:
            return ["one too many"] * 2

        coalescer = Coalescer(perform, name="test")
        with pytest.raises(OutcomeUnknown):
            await coalescer.submit(1).future

    asyncio.run(scenario())
