"""What one turn of the event loop writes to a client goes in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eventsite.web.cork import AT_ONCE, Corked


class Recording(asyncio.Transport):
    """Keeps the pieces that it was given to send."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        assert not self.closed
        self.pieces.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def run(scenario: Callable[[Recording, Corked], Awaitable[None]]) -> None:
    async def whole() -> None:
        below = Recording()
        await scenario(below, Corked(below, asyncio.get_running_loop()))

    asyncio.run(whole())


def test_what_a_turn_writes_is_one_piece_behind_it() -> None:
    async def scenario(below: Recording, corked: Corked) -> None:
        for body in (b"one", b"two"):
            corked.write(b"head ")
            corked.write(body)
            assert below.pieces == []
            await asyncio.sleep(0)
            assert below.pieces == [b"head " + body]
            below.pieces.clear()

    run(scenario)


def test_all_that_answers_in_a_turn_does_so_before_the_first_is_sent() -> None:
    async def scenario(below: Recording, corked: Corked) -> None:
        loop = asyncio.get_running_loop()
        clients = [Corked(below, loop) for _ in range(3)]
        unsent: list[bool] = []

        async def answer(client: Corked) -> None:
            unsent.append(not below.pieces)
            client.write(b"answer")

        tasks = [asyncio.ensure_future(answer(client)) for client in clients]
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        assert unsent == [True, True, True]
        assert below.pieces == [b"answer"] * 3

    run(scenario)


def test_much_does_not_wait_for_the_end_of_the_turn() -> None:
    async def scenario(below: Recording, corked: Corked) -> None:
        corked.write(b"head")
        corked.write(b"x" * AT_ONCE)
        assert [len(piece) for piece in below.pieces] == [AT_ONCE + 4]
        corked.write(b"rest")
        await asyncio.sleep(0)
        assert below.pieces[1:] == [b"rest"]

    run(scenario)


@pytest.mark.parametrize("size", [1, AT_ONCE])
def test_it_closes_behind_what_was_written(size: int) -> None:
    async def scenario(below: Recording, corked: Corked) -> None:
        corked.write(b"x" * size)
        corked.close()
        assert (below.pieces, below.closed) == ([b"x" * size], True)
        await asyncio.sleep(0)
        assert len(below.pieces) == 1

    run(scenario)


def test_nothing_is_sent_to_a_client_that_has_gone() -> None:
    async def scenario(below: Recording, corked: Corked) -> None:
        corked.write(b"answer")
        below.closed = True  # by a reset
        await asyncio.sleep(0)
        corked.write(b"more")
        await asyncio.sleep(0)
        assert below.pieces == []

    run(scenario)
