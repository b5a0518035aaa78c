"""Sessions that hot paths share, with a real server where it is about connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection

from devtools.testing.weather import Fault
from eventsite.web.gateway.asgi_types import Message, Receive, Scope, Send
from eventsite.web.hot_paths import coalescer as coalescer_module
from eventsite.web.hot_paths import metrics
from eventsite.web.hot_paths.coalescer import Coalescer
from eventsite.web.hot_paths.layer import HotPaths
from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.hot_paths.session import Session
from eventsite.web.hot_paths.tests.steps import proxied
from outbox.database.round_trips import Change, RoundTrip, Statement, Steps
from outbox.database.unit_of_work import TurnedAway
from restapi.answers import json_answer
from restapi.hot_path import AnyHotPath, HotPath, HotRead

UUIDS = "01890000-0000-7000-8000-{:012d}"


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Users:
    """Who takes a session of a pool, in the order in which each got one, and lets it go when told."""

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool
        self.got: list[str] = []
        self.sessions: dict[str, Session] = {}
        self._done: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self._done[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._use(name))
            await settled()

    async def go(self, name: str) -> None:
        self._done[name].set()
        await settled()

    async def _use(self, name: str) -> None:
        async with self._pool.turn() as session:
            self.got.append(name)
            self.sessions[name] = session
            await self._done[name].wait()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_the_first_free_session_goes_to_who_waits_longest() -> None:
    async def scenario() -> None:
        users = Users(SessionPool(2))
        await users.come("a", "b", "c", "d")
        assert users.got == ["a", "b"]
        await users.go("b")
        assert users.got == ["a", "b", "c"]
        assert users.sessions["c"] is users.sessions["b"]
        await users.come("e")
        await users.go("c")
        assert users.got == ["a", "b", "c", "d"]
        await users.go("a")
        assert users.got[-1] == "e"

    run(scenario)


def test_one_session_does_the_work_while_there_is_little() -> None:
    async def scenario() -> None:
        users = Users(SessionPool(3))
        for name in "abc":
            await users.come(name)
            await users.go(name)
        assert len(set(map(id, users.sessions.values()))) == 1

    run(scenario)


@pytest.mark.parametrize("handed_over", [False, True])
def test_who_no_longer_waits_keeps_no_session(handed_over: bool) -> None:
    async def scenario() -> None:
        users = Users(SessionPool(1))
        await users.come("a", "b", "c")
        if handed_over:
            users._done["a"].set()
            while not users.tasks["a"].done():  # it has just handed its session to b
                await asyncio.sleep(0)
        users.tasks["b"].cancel()
        await settled()
        await users.go("a")
        assert users.got == ["a", "c"]
        await users.go("c")
        await users.come("d")
        assert users.got == ["a", "c", "d"]

    run(scenario)


def test_a_session_comes_back_from_who_fails() -> None:
    async def scenario() -> None:
        pool = SessionPool(1)
        for _ in range(3):
            with suppress(ZeroDivisionError):
                async with pool.turn():
                    raise ZeroDivisionError

    run(scenario)


class Hand:
    """A coalescer on a pool whose batches end when they are told to."""

    def __init__(self, pool: SessionPool, name: str, said: list[str], **bounds: Any) -> None:
        self._name, self._said = name, said
        self.gate = asyncio.Semaphore(0)
        self.coalescer = Coalescer(self._perform, name=name, turn=pool.turn(), **bounds)

    async def _perform(self, numbers: Sequence[int]) -> Sequence[int]:
        self._said.append(f"{self._name}{list(numbers)}")
        await self.gate.acquire()
        return numbers

    def submit(self, *numbers: int) -> list[asyncio.Future[int]]:
        return [self.coalescer.submit(number).future for number in numbers]


def test_a_busy_path_stands_behind_those_that_waited_meanwhile() -> None:
    """And what comes while a path waits for its turn is in its batch."""

    async def scenario() -> None:
        pool, said = SessionPool(1), list[str]()
        busy, other, third = (Hand(pool, name, said) for name in ("busy", "other", "third"))
        answers = busy.submit(1)
        await settled()
        answers += busy.submit(2)
        answers += other.submit(1)
        await settled()
        answers += third.submit(1)
        await settled()
        answers += [*other.submit(2), *busy.submit(3)]
        for hand in (busy, other, third, busy):
            hand.gate.release()
            await settled()
        assert said == ["busy[1]", "other[1, 2]", "third[1]", "busy[2, 3]"]
        await asyncio.gather(*answers)

    run(scenario)


def test_who_waits_too_long_for_a_session_is_told_so_and_not_done() -> None:
    async def scenario() -> None:
        pool, said = SessionPool(1), list[str]()
        hung, other = Hand(pool, "hung", said), Hand(pool, "other", said, patience=0.2)
        [first] = hung.submit(1)
        await settled()
        [late] = other.submit(1)
        with pytest.raises(TurnedAway):
            await late
        hung.gate.release()
        assert await first == 1
        other.gate.release()
        assert await other.submit(2)[0] == 2
        assert said == ["hung[1]", "other[2]"]

    run(scenario)


def test_the_wait_for_a_session_is_part_of_the_age(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(coalescer_module, "MEASURED_EVERY", 0.01)
        pool, said = SessionPool(1), list[str]()
        hung, other = Hand(pool, "hung", said), Hand(pool, "aged", said)
        hung.submit(1)
        await settled()
        other.submit(1)
        gauge = metrics.OLDEST.labels("aged")
        while gauge._value.get() < 0.05:
            await asyncio.sleep(0.01)
        assert said == ["hung[1]"]
        hung.gate.release()
        other.gate.release()
        await hung.coalescer.close()
        await other.coalescer.close()

    run(scenario)


def test_closing_answers_who_waits_for_a_session() -> None:
    async def scenario() -> None:
        pool, said = SessionPool(1), list[str]()
        hung = Hand(pool, "hung", said)
        other = Hand(pool, "other", said, last_patience=0.1)
        hung.submit(1)
        await settled()
        [late] = other.submit(1)
        await other.coalescer.close()
        with pytest.raises(TurnedAway):
            await late
        hung.gate.release()
        await settled()
        async with pool.turn():
            pass

    run(scenario)


# With a server


def slow(number: int) -> HotRead[str]:
    """/orders/{id}/<number>: says by which connection it was read, and takes as many seconds as the
    id ends with."""
    return HotRead(
        path=("/orders/{id}", "/orders/{id}/pay", "/orders/{id}/ship")[number],
        route=str(number),
        statement=lambda ids: (
            f"SELECT pg_backend_pid(), {number}, pg_sleep(max(right(id, 1)::int))::text"
            " FROM unnest(%s::text[]) AS id",
            ("{" + ",".join(ids) + "}",),
        ),
        answers=lambda ids, rows: [json_answer(200, rows[0][0])] * len(ids),
    )


def note(number: int) -> HotPath[str, str]:
    return HotPath(
        method="POST",
        path=("/orders/{id}/pay", "/orders/{id}/ship")[number],
        route=str(number),
        read=lambda asked: asked.id,
        write=wrote,
        answer=lambda _, pid: (200, pid),
    )


def wrote(ids: Sequence[str]) -> Steps[str | None]:
    [[(pid,)]] = yield RoundTrip([("SELECT pg_backend_pid()", ())])
    return Change([pid] * len(ids))


async def no_django(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "django"})


async def asked(layer: HotPaths, method: str, path: str) -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    await layer(scope, receive, send)
    start, body = sent
    return start["status"], body["body"]


def line(number: int, seconds: int = 0) -> str:
    return f"/orders/{UUIDS.format(seconds)}" + ("", "/pay", "/ship")[number]


def with_layer(
    paths: Sequence[AnyHotPath], scenario: Callable[[HotPaths], Awaitable[None]], sessions: int = 2
) -> None:
    async def whole() -> None:
        layer = HotPaths(no_django, paths, headers=[], sessions=sessions)
        try:
            await scenario(layer)
        finally:
            await layer.close()

    run(whole)


pytest_database = pytest.mark.django_db(transaction=True)


@pytest_database
def test_all_paths_share_their_sessions() -> None:
    """And reads share none with writes."""

    async def scenario(layer: HotPaths) -> None:
        reads = {await asked(layer, "GET", line(number)) for number in range(3)}
        writes = {await asked(layer, "POST", line(number)) for number in (1, 2)}
        assert [status for status, _ in reads | writes] == [200, 200]
        assert len(reads) == len(writes) == 1
        assert not reads & writes

    with_layer([*map(slow, range(3)), *map(note, range(2))], scenario)


@pytest_database
def test_a_slow_batch_of_one_path_leaves_a_session_for_the_others() -> None:
    async def scenario(layer: HotPaths) -> None:
        long = asyncio.create_task(asked(layer, "GET", line(0, 4)))
        await asyncio.sleep(0.1)
        others = {await asked(layer, "GET", line(1 + number % 2)) for number in range(6)}
        assert not long.done()
        assert len(others) == 1
        assert await long not in others

    with_layer(list(map(slow, range(3))), scenario)


@pytest_database
def test_a_connection_that_ends_is_replaced_whichever_path_uses_it_next() -> None:
    async def scenario(layer: HotPaths) -> None:
        _, before = await asked(layer, "GET", line(0))
        await asyncio.to_thread(end_session, int(before))
        for number in (1, 2, 0):
            status, pid = await asked(layer, "GET", line(number))
            assert status == 200
            assert pid != before
        _, wrote_by = await asked(layer, "POST", line(1))
        await asyncio.to_thread(end_session, int(wrote_by))
        status, pid = await asked(layer, "POST", line(2))
        assert (status, pid != wrote_by) == (200, True)

    with_layer([*map(slow, range(3)), *map(note, range(2))], scenario, sessions=1)


def end_session(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    connection.close()  # that of the thread


@pytest_database
def test_a_silent_server_is_told_within_ten_seconds_to_all_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though they have fewer sessions than paths; and it is asked again as soon as it speaks."""

    async def scenario(layer: HotPaths) -> None:
        loop = asyncio.get_running_loop()
        with proxied(monkeypatch) as proxy:
            assert {(await asked(layer, "GET", line(n)))[0] for n in range(3)} == {200}
            proxy.set(Fault.SILENT)
            begin, tasks = loop.time(), []
            for number in range(9):
                tasks.append(asyncio.create_task(asked(layer, "GET", line(number % 3))))
                await asyncio.sleep(0.1)
            told = await asyncio.gather(*tasks)
            assert {status for status, _ in told} == {503}
            assert loop.time() - begin < 10.9  # the last came 0.9 s after the first
            proxy.set(Fault.NONE)
            assert {(await asked(layer, "GET", line(n)))[0] for n in range(3)} == {200}

    with_layer(list(map(slow, range(3))), scenario, sessions=1)


@pytest_database
def test_what_one_user_leaves_open_is_not_the_next_ones() -> None:
    async def scenario() -> None:
        hot = Session()
        pid: Statement = ("SELECT pg_backend_pid()", ())
        before = await hot.rows(pid)
        await hot.rows(("BEGIN", ()))
        assert await hot.rows(pid) != before
        await hot.close()

    run(scenario)
