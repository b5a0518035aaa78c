"""A session is lost, falls silent or is cancelled while it writes: which rows are stored, and which answer the caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import uvloop

from devtools.testing.weather import Fault
from eventsite.web.hot_paths.session import Session
from eventsite.web.hot_paths.tests.notes import ADD, WAIT_AT_COMMIT, adding, execute, run, stored
from eventsite.web.hot_paths.tests.steps import asking, proxied, saying
from eventsite.web.hot_paths.wire import Wire
from outbox.database.round_trips import Row, Statement, Steps
from outbox.database.unit_of_work import NotStored, OutcomeUnknown

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def notes() -> Iterator[None]:
    execute("CREATE TABLE notes (number int PRIMARY KEY)")
    yield
    execute("DROP TABLE notes; DROP FUNCTION IF EXISTS at_commit")


async def end_sessions(wait_event: str) -> None:
    """Those that wait so, as soon as there is one."""
    end = f"""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE wait_event = '{wait_event}' AND datname = current_database()
    """
    while not await asyncio.to_thread(execute, end):
        await asyncio.sleep(0.02)


def test_a_session_lost_at_commit_is_unknown() -> None:
    execute(WAIT_AT_COMMIT.format(body="PERFORM pg_sleep(20)"))
    told: list[str] = []

    async def scenario(session: Session) -> None:
        ending = asyncio.ensure_future(end_sessions("PgSleep"))
        with pytest.raises(OutcomeUnknown):
            await session.transact(adding([1], told=told))
        await ending
        execute("DROP FUNCTION at_commit CASCADE")
        assert await session.transact(adding([2])) == ["done"]

    run(scenario)
    assert stored() == [2]
    assert told == []


@pytest.mark.parametrize("sending", [asking, saying])
def test_a_session_lost_before_commit_is_not_stored(
    sending: Callable[..., Steps[Any]],
) -> None:
    """Also with COMMIT under way behind it: the server has said where it ended."""

    async def scenario(session: Session) -> None:
        ending = asyncio.ensure_future(end_sessions("PgSleep"))
        with pytest.raises(NotStored):
            await session.transact(sending([(ADD, (1,)), ("SELECT pg_sleep(20)", ())]))
        await ending
        assert await session.transact(adding([2])) == ["done"]

    run(scenario)
    assert stored() == [2]


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_session_that_ends_while_it_has_not_read_all(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Its end is a reset then, of which uvloop tells only once: the last words, or the end."""

    sleeping: list[Statement] = [
        ("SELECT pg_sleep(20)", ()),
        ("SELECT length(%s::text)", ("x" * 100_000,)),
    ]

    async def scenario(session: Session) -> None:
        for _ in range(3):
            writing = asyncio.ensure_future(session.transact(saying(sleeping)))
            await end_sessions("PgSleep")
            with pytest.raises(NotStored):
                await writing
            # and one that is idle
            await session.transact(adding())

    run(scenario, make_loop)


async def end_while_it_commits() -> None:
    end = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE query = 'COMMIT' AND state = 'active' AND datname = current_database()
    """
    while not await asyncio.to_thread(execute, end):
        await asyncio.sleep(0.005)


def test_a_session_that_ends_while_commit_is_written_is_stored() -> None:
    """PostgreSQL finishes that first, and says so before it says why it ends."""
    slowly: list[Statement] = [
        ("SET LOCAL commit_delay = 100000", ()),  # microseconds; the most there is
        ("SET LOCAL commit_siblings = 0", ()),
    ]

    ended = []

    async def scenario(session: Session) -> None:
        for number in range(5):
            ending = asyncio.ensure_future(end_while_it_commits())
            assert await session.transact(saying([*slowly, (ADD, (number,))])) == []
            ending.cancel()  # if it came too late
            ended.append(session._wire is not None and session._wire.closed)

    run(scenario)
    assert any(ended)
    assert stored() == [0, 1, 2, 3, 4]


def test_a_lost_connection_that_is_said_is_not_said_to_be_before_commit() -> None:
    """A pooler, for example, has lost the server, and answers in its place."""
    lost = WAIT_AT_COMMIT.format(body="RAISE EXCEPTION 'no' USING ERRCODE = '08006'")
    execute(lost.replace("DEFERRABLE INITIALLY DEFERRED", "NOT DEFERRABLE"))

    async def scenario(session: Session) -> None:
        with pytest.raises(OutcomeUnknown):
            await session.transact(adding([1]))

    run(scenario)
    assert stored() == []


def test_a_session_that_ends_while_nobody_asks() -> None:
    async def scenario(session: Session) -> None:
        for number in range(3):
            assert await session.transact(adding([number])) == ["done"]
            wire = session._wire
            assert wire is not None
            await asyncio.to_thread(
                execute,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE query = 'COMMIT' AND datname = current_database()",
            )
            while not wire.closed:
                await asyncio.sleep(0.01)

    run(scenario)
    assert stored() == [0, 1, 2]


def test_an_error_at_commit_that_says_nothing_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    trip = Wire.trip

    async def speechless(wire: Wire, statements: Sequence[Statement]) -> list[Sequence[Row]]:
        if statements[-1][0] == "COMMIT":
            wire.begun = len(statements)
            raise psycopg.DatabaseError("?")
        return await trip(wire, statements)

    async def scenario(session: Session) -> None:
        monkeypatch.setattr(Wire, "trip", speechless)
        with pytest.raises(OutcomeUnknown):
            await session.transact(adding([1]))

    run(scenario)


def test_a_server_that_goes_away_is_not_stored_and_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(session: Session) -> None:
        with proxied(monkeypatch) as proxy:
            await session.transact(adding([1]))
            proxy.set(Fault.AWAY)
            with pytest.raises(NotStored):
                await session.transact(adding([2]))
            proxy.set(Fault.NONE)
            await session.transact(adding([3]))

    run(scenario)
    assert stored() == [1, 3]


@pytest.mark.parametrize(("trips", "error"), [([[2]], OutcomeUnknown), ([[2], [3]], NotStored)])
def test_a_server_that_falls_silent_is_waited_for_until_the_connection_ends(
    monkeypatch: pytest.MonkeyPatch, trips: Sequence[Sequence[int]], error: type[Exception]
) -> None:
    """What it has done then only it knows, if COMMIT was under way."""

    async def scenario(session: Session) -> None:
        with proxied(monkeypatch) as proxy:
            await session.transact(adding([1]))
            proxy.set(Fault.SILENT)
            writing = asyncio.ensure_future(session.transact(adding(*trips)))
            await asyncio.sleep(0.5)
            assert not writing.done()
            proxy.set(Fault.AWAY)
            with pytest.raises(error):
                await writing
            proxy.set(Fault.NONE)
            await session.transact(adding([4]))

    run(scenario)
    assert stored() == [1, 4]


def test_who_is_cancelled_in_the_middle_leaves_nothing_half() -> None:
    async def scenario(session: Session) -> None:
        sleeping = saying([(ADD, (1,)), ("SELECT pg_sleep(20)", ())])
        writing = asyncio.ensure_future(session.transact(sleeping))
        await asyncio.sleep(0.3)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await session.transact(adding([2])) == ["done"]

    run(scenario)
    execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    assert stored() == [2]
