"""Writing on the event loop, with a real server: all or nothing, and what is refused leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection

from eventsite.web.hot_paths.session import Session
from eventsite.web.hot_paths.tests.notes import ADD, WAIT_AT_COMMIT, adding, execute, run, stored
from eventsite.web.hot_paths.tests.steps import asking, saying
from outbox.database.round_trips import Change, RoundTrip, Statement, Steps
from outbox.database.unit_of_work import NotStored

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def notes() -> Iterator[None]:
    execute("CREATE TABLE notes (number int PRIMARY KEY)")
    yield
    execute("DROP TABLE notes; DROP FUNCTION IF EXISTS at_commit")


def test_all_round_trips_are_one_transaction_and_then_it_is_told() -> None:
    told: list[str] = []

    async def scenario(session: Session) -> None:
        assert await session.transact(adding([1, 2], [3], told=told)) == ["done"]

    run(scenario)
    assert stored() == [1, 2, 3]
    assert told == ["committed"] * 2


def test_rows_come_back_to_who_asked_for_them() -> None:
    first: list[Statement] = [("SELECT 1, %s::text", ("a'\\",)), (ADD, (1,)), ("SELECT 2", ())]
    second: list[Statement] = [("SELECT number, NULL, 'x'::bytea FROM notes", ())]

    async def scenario(session: Session) -> None:
        for _ in range(2):  # prepared, then prepared already
            rows = await session.transact(asking(first, second))
            assert rows == [[(1, "a'\\")], [], [(2,)], [(1, None, b"x")]]
            await asyncio.to_thread(execute, "TRUNCATE notes")

    run(scenario)


def test_a_percent_sign_is_written_twice_as_on_djangos_connection() -> None:
    sql, parameters = "SELECT '5%%', '%%s', '%%' || %s::text, %s::int", ("%s", 7)

    async def scenario(session: Session) -> None:
        [rows] = await session.transact(asking([(sql, parameters)]))
        assert rows == [("5%", "%s", "%%s", 7)]

    run(scenario)
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        assert cursor.fetchall() == [("5%", "%s", "%%s", 7)]


def test_what_is_to_be_made_ready_is_made_before_the_rows_are_there() -> None:
    order: list[str] = []

    def steps() -> Steps[None]:
        yield RoundTrip([("SELECT 1", ())], meanwhile=lambda: order.append("meanwhile"))
        order.append("rows")
        return Change([])

    async def scenario(session: Session) -> None:
        await session.transact(steps())

    run(scenario)
    assert order == ["meanwhile", "rows"]


def test_whoever_stops_on_the_way_leaves_no_answers_to_the_next() -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    def stopping() -> Steps[None]:
        yield RoundTrip([("SELECT 1", ())], meanwhile=stop)
        return Change([])

    async def scenario(session: Session) -> None:
        await session.transact(adding([1]))
        with pytest.raises(Stopped):
            await session.transact(stopping())
        assert await session.transact(asking([("SELECT 2", ())])) == [[(2,)]]

    run(scenario)
    assert stored() == [1]


def test_nothing_to_send_is_no_transaction() -> None:
    async def scenario(session: Session) -> None:
        assert await session.transact(adding()) == ["done"]

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
@pytest.mark.parametrize("sending", [asking, saying])
def test_a_statement_that_is_refused_leaves_nothing(
    place: int, sending: Callable[..., Steps[Any]]
) -> None:
    """And what stood behind it, never prepared, is prepared the next time."""
    execute("INSERT INTO notes VALUES (7)")
    told: list[str] = []
    statements: list[Statement] = [(ADD, (number,)) for number in range(3)]
    statements[place] = ("INSERT INTO notes SELECT %s::int", (7,))

    async def scenario(session: Session) -> None:
        for _ in range(2):
            steps = sending(statements, on_commit=lambda: told.append("committed"))
            with pytest.raises(IntegrityError):
                await session.transact(steps)
        assert await session.transact(adding([1])) == ["done"]

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


def test_what_is_stored_stays_stored_whatever_is_raised_behind_it() -> None:
    """Else it would be tried again, in halves and by Django."""

    def raising() -> None:
        raise RuntimeError("can't start new thread")

    async def scenario(session: Session) -> None:
        assert await session.transact(saying([(ADD, (1,))], on_commit=raising)) == []

    run(scenario)
    assert stored() == [1]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (("COPY notes TO STDOUT", ()), NotStored),  # an answer of another kind
        (("SELECT '294276-01-01'::timestamp", ()), NotStored),  # a time that Python does not have
        (("SELECT %s::text", ("\ud800",)), UnicodeEncodeError),
        (("SELECT %s::text", ("a\0b",)), DataError),  # that libpq would cut
    ],
)
def test_what_cannot_be_said_or_read_wedges_nothing(
    statement: Statement, error: type[Exception]
) -> None:
    async def scenario(session: Session) -> None:
        for _ in range(2):
            with pytest.raises(error):
                await session.transact(asking([(ADD, (1,))], [(ADD, (2,)), statement]))
        await session.transact(adding([3]))

    run(scenario)
    assert stored() == [3]


def test_a_statement_is_prepared_once_also_while_all_are_refused() -> None:
    counting: Statement = ("SELECT count(*) FROM pg_prepared_statements", ())

    async def scenario(session: Session) -> None:
        for _ in range(10):
            with pytest.raises(DataError):
                await session.transact(saying([(ADD, (1,)), ("SELECT 1 / %s::int", (0,))]))
        [[[count]]] = await session.transact(asking([counting]))
        assert count <= 6  # with BEGIN, COMMIT, ROLLBACK and itself

    run(scenario)


def test_a_statement_longer_than_the_sockets_take() -> None:
    """To which the server says nothing before it has all of it."""
    long = "x" * 40_000_000

    async def scenario(session: Session) -> None:
        rows = await session.transact(asking([("SELECT length(%s::text)", (long,))]))
        assert rows == [[(len(long),)]]

    run(scenario)


def test_what_is_longer_than_the_sockets_take() -> None:
    """Both ways at once, so neither side may wait for the other to read first."""
    long = "x" * 3_000_000

    statements: list[Statement] = [("SELECT %s::text || %s", (long, number)) for number in "123"]

    async def scenario(session: Session) -> None:
        rows = await session.transact(asking(statements))
        assert [row for [row] in rows] == [(long + number,) for number in "123"]

    run(scenario)
