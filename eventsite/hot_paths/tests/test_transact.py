"""Writing on the event loop, with a real server: all or nothing, and what a failure is told as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import uvloop
from django.db import IntegrityError, connection

from eventsite.hot_paths.session import Session
from eventsite.tests.weather import Fault, proxy_to
from outbox.round_trips import RoundTrip, Row, Statement, Steps
from outbox.services import NotStored, OutcomeUnknown

pytestmark = pytest.mark.django_db(transaction=True)

ADD = "INSERT INTO notes VALUES (%s::int)"
WAIT_AT_COMMIT = """
    CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN {body}; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON notes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()
"""


def execute(sql: str) -> list[Row]:
    """On a connection of its own."""
    given = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    known = {name: given[name] for name in names if name in given}
    with psycopg.connect(**known, autocommit=True) as other:
        cursor = other.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(autouse=True)
def notes() -> Iterator[None]:
    execute("CREATE TABLE notes (number int PRIMARY KEY)")
    yield
    execute("DROP TABLE notes; DROP FUNCTION IF EXISTS at_commit")


def stored() -> list[int]:
    return [number for (number,) in execute("SELECT number FROM notes ORDER BY number")]


def adding(*trips: Sequence[int], told: list[str] | None = None) -> Steps[str]:
    """A note for each number, each sequence in a round trip of its own."""
    for numbers in trips:
        statements: list[Statement] = [(ADD, (number,)) for number in numbers]
        yield RoundTrip(statements, None if told is None else lambda: told.append("committed"))
    return "done"


def run(scenario: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        session = Session()
        try:
            await asyncio.wait_for(scenario(session), 20)
        finally:
            await session.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def test_all_round_trips_are_one_transaction_and_then_it_is_told() -> None:
    told: list[str] = []

    async def scenario(session: Session) -> None:
        assert await session.transact(adding([1, 2], [3], told=told)) == "done"

    run(scenario)
    assert stored() == [1, 2, 3]
    assert told == ["committed"] * 2


def test_rows_come_back_to_who_asked_for_them() -> None:
    def asking() -> Steps[list[Sequence[Row]]]:
        first = yield RoundTrip([("SELECT 1, %s::text", ("a'\\",)), (ADD, (1,)), ("SELECT 2", ())])
        second = yield RoundTrip([("SELECT number, NULL, 'x'::bytea FROM notes", ())])
        return [*first, *second]

    async def scenario(session: Session) -> None:
        for _ in range(2):  # prepared, then prepared already
            rows = await session.transact(asking())
            assert rows == [[(1, "a'\\")], [], [(2,)], [(1, None, b"x")]]
            await asyncio.to_thread(execute, "TRUNCATE notes")

    run(scenario)


def test_nothing_to_send_is_no_transaction() -> None:
    async def scenario(session: Session) -> None:
        assert await session.transact(adding()) == "done"

    run(scenario)


def test_steps_that_raise_leave_nothing_and_the_session_goes_on() -> None:
    def raising() -> Steps[None]:
        yield RoundTrip([(ADD, (1,))])
        raise LookupError("no")

    async def scenario(session: Session) -> None:
        with pytest.raises(LookupError):
            await session.transact(raising())
        await session.transact(adding([2]))

    run(scenario)
    assert stored() == [2]


@pytest.mark.parametrize("place", range(3))
def test_a_statement_that_is_refused_leaves_nothing(place: int) -> None:
    """And what stood behind it, never prepared, is prepared the next time."""
    execute("INSERT INTO notes VALUES (7)")
    told: list[str] = []

    def refused() -> Steps[None]:
        statements: list[Statement] = [(ADD, (number,)) for number in range(3)]
        statements[place] = ("INSERT INTO notes SELECT %s::int", (7,))
        yield RoundTrip(statements, lambda: told.append("committed"))

    async def scenario(session: Session) -> None:
        for _ in range(2):
            with pytest.raises(IntegrityError):
                await session.transact(refused())
        assert await session.transact(adding([1])) == "done"

    run(scenario)
    assert stored() == [1, 7]
    assert told == []


def test_a_refusal_at_commit_is_the_callers_error() -> None:
    execute(WAIT_AT_COMMIT.format(body="RAISE EXCEPTION 'no' USING ERRCODE = '23514'"))

    async def scenario(session: Session) -> None:
        with pytest.raises(IntegrityError):
            await session.transact(adding([1]))

    run(scenario)
    assert stored() == []


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
        assert await session.transact(adding([2])) == "done"

    run(scenario)
    assert stored() == [2]
    assert told == []


def test_a_session_lost_before_commit_is_not_stored() -> None:
    def sleeping() -> Steps[None]:
        yield RoundTrip([(ADD, (1,)), ("SELECT pg_sleep(20)", ())])

    async def scenario(session: Session) -> None:
        ending = asyncio.ensure_future(end_sessions("PgSleep"))
        with pytest.raises(NotStored):
            await session.transact(sleeping())
        await ending
        assert await session.transact(adding([2])) == "done"

    run(scenario)
    assert stored() == [2]


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.SILENT])
def test_a_server_that_goes_away_is_not_stored_and_found_again(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    host, port = connection.settings_dict["HOST"], int(connection.settings_dict["PORT"])

    async def scenario(session: Session) -> None:
        with proxy_to(host, port) as proxy, monkeypatch.context() as patched:
            patched.setitem(connection.settings_dict, "PORT", str(proxy.port))
            await session.transact(adding([1]))
            proxy.set(fault)
            writing = asyncio.ensure_future(session.transact(adding([2])))
            if fault is Fault.SILENT:  # then only the end of the connection says so
                await asyncio.sleep(0.5)
                assert not writing.done()
                proxy.set(Fault.AWAY)
            with pytest.raises(NotStored):
                await writing
            proxy.set(Fault.NONE)
            await session.transact(adding([3]))

    run(scenario)
    assert stored() == [1, 3]


def test_who_is_cancelled_in_the_middle_leaves_nothing_half() -> None:
    def sleeping() -> Steps[None]:
        yield RoundTrip([(ADD, (1,)), ("SELECT pg_sleep(20)", ())])

    async def scenario(session: Session) -> None:
        writing = asyncio.ensure_future(session.transact(sleeping()))
        await asyncio.sleep(0.3)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await session.transact(adding([2])) == "done"

    run(scenario)
    execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    assert stored() == [2]


def test_what_is_longer_than_the_sockets_take() -> None:
    """Both ways at once, so neither side may wait for the other to read first."""
    long = "x" * 3_000_000

    def asking() -> Steps[list[Sequence[Row]]]:
        statements: list[Statement] = [
            ("SELECT %s::text || %s", (long, number)) for number in "123"
        ]
        return [*(yield RoundTrip(statements))]

    async def scenario(session: Session) -> None:
        rows = await session.transact(asking())
        assert [row for [row] in rows] == [(long + number,) for number in "123"]

    run(scenario)
