"""Looks of a reader, one after the other, with writers that are open at the right moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from devtools.testing.processes import child_environment
from devtools.testing.ticks.log import TICKS, Writer, ticks_table
from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.status_hub import floor
from eventsite.web.status_hub.reader import BUSY, LogReader
from eventsite.web.status_hub.seat import QueuePlace, SendLine

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def writer() -> Iterator[Writer]:
    with ticks_table(child_environment()["DATABASE_URL"]) as writer:
        yield writer


@pytest.fixture
def other(writer: Writer) -> Iterator[Writer]:
    other = Writer(child_environment()["DATABASE_URL"])
    yield other
    other.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look asks who writes; the floor is never left out but in the first."""
    monkeypatch.setattr(floor, "LOOKS_EVERY", 0.0)


def run(scenario: Callable[[LogReader], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        sessions = SessionPool(1)
        try:
            await asyncio.wait_for(scenario(LogReader(TICKS, sessions)), 20)
        finally:
            await sessions.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


@pytest.mark.usefixtures("often")
def test_a_floor_passes_no_open_writer(writer: Writer, other: Writer) -> None:
    async def scenario(reader: LogReader) -> None:
        with writer.connection.transaction():
            writer.add("late", 1)
            for number in range(10):
                other.add("early", number)
                await reader._look()
            assert reader.last == 10
        for _ in range(2):
            await reader._look()
        assert reader.last == 11

    run(scenario)


@pytest.mark.usefixtures("often")
def test_what_was_numbered_is_not_passed_again(writer: Writer, other: Writer) -> None:
    """However old a snapshot somebody holds."""

    async def scenario(reader: LogReader) -> None:
        other.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.rows("SELECT count(*) FROM ticks")
        writer.add("key", *range(100))
        for _ in range(4):
            await reader._look()
        [(last,)] = writer.rows("SELECT max(id) FROM ticks")
        assert reader._floor.begin(asyncio.get_running_loop().time()) == last + 1
        other.connection.rollback()

    run(scenario)


def test_a_second_numberer_does_no_harm(writer: Writer, other: Writer) -> None:
    """While the first one numbers it does nothing, and comes again soon."""

    async def scenario(reader: LogReader) -> None:
        sessions = SessionPool(1)
        second = LogReader(TICKS, sessions)
        writer.add("key", *range(3))
        with other.connection.transaction():
            other.rows("SELECT FROM ticks WHERE number = 1 FOR UPDATE")
            numbering = asyncio.create_task(reader._look())
            while not writer.rows("SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
            assert await asyncio.wait_for(second._look(), 10) == BUSY
        await numbering
        await second._look()
        await sessions.close()

    run(scenario)
    assert writer.rows("SELECT seq, number FROM ticks ORDER BY seq") == [(1, 0), (2, 1), (3, 2)]


class Client:
    """The consumer of a socket: notes the numbers that it is sent, and stands still where it is told to."""

    def __init__(self, stand_at: int = 0) -> None:
        self.sent: list[Any] = []
        self.stands, self.may_go_on = asyncio.Event(), asyncio.Event()
        self._stand_at = stand_at

    async def enter(self, reader: LogReader, since: int | None, key: str = "*") -> QueuePlace:
        line = SendLine(self._send, self._push, self._close)
        return await reader.enter(key, since=since, line=line)

    def _push(self, frame: bytes) -> bool:
        return False

    async def _send(self, message: Mapping[str, Any]) -> None:
        told = json.loads(message["text"])
        if told["seq"] == self._stand_at:
            self.stands.set()
            await self.may_go_on.wait()
        self.sent.append(told.get("number", "open"))

    async def _close(self, code: int, reason: str) -> None:
        raise AssertionError(reason)


async def until(condition: Callable[[], bool], reader: LogReader) -> None:
    while not condition():
        reader.nudge()
        await asyncio.sleep(0.01)


def test_what_comes_while_a_client_catches_up_comes_once_and_in_its_place(writer: Writer) -> None:
    """It reads slowly, and the reader hands out more meanwhile."""

    async def scenario(reader: LogReader) -> None:
        writer.add("key", *range(5))
        looks = asyncio.create_task(reader.run())
        client = Client(stand_at=3)
        await until(lambda: reader.last == 5, reader)
        place = await client.enter(reader, since=0)
        place.begin()
        await client.stands.wait()
        writer.add("key", 5, 6)
        await until(lambda: reader.last == 7, reader)
        client.may_go_on.set()
        writer.add("key", 7)
        await until(lambda: len(client.sent) >= 9, reader)
        place.leave()
        looks.cancel()
        assert client.sent == ["open", *range(8)]

    run(scenario)


def test_a_client_may_come_from_a_process_that_was_ahead(writer: Writer) -> None:
    async def scenario(reader: LogReader) -> None:
        looks = asyncio.create_task(reader.run())
        there = await Client().enter(reader, since=None, key="other")
        there.begin()
        looks.cancel()
        sessions = SessionPool(1)
        writer.add("key", 0, 1)
        await LogReader(TICKS, sessions)._look()
        await sessions.close()
        client = Client()
        entering = asyncio.create_task(client.enter(reader, since=2))
        looks = asyncio.create_task(reader.run())
        place = await entering
        place.begin()
        writer.add("key", 2)
        await until(lambda: len(client.sent) >= 2, reader)
        for each in (place, there):
            each.leave()
        looks.cancel()
        assert client.sent == ["open", 2]

    run(scenario)


def test_rows_that_were_set_back_are_numbered_by_a_sweep(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "SWEEPS_EVERY", 0.0)

    async def scenario(reader: LogReader) -> None:
        reader._floor._floor = 1000
        writer.add("key", 1)
        await reader._look()
        assert reader.last == 1

    run(scenario)
