"""Writing on the event loop, with a real server: all or nothing, and what a failure is told as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import uvloop
from django.db import DataError, IntegrityError, connection

from devtools.testing.weather import Fault
from eventsite.web.hot_paths.session import Session
from eventsite.web.hot_paths.tests.steps import asking, proxied, saying
from eventsite.web.hot_paths.wire import Wire
from outbox.database.round_trips import Change, RoundTrip, Row, Statement, Steps
from outbox.database.unit_of_work import NotStored, OutcomeUnknown

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
    on_commit = None if told is None else lambda: told.append("committed")
    writing = [RoundTrip([(ADD, (number,)) for number in numbers], on_commit) for numbers in trips]
    while len(writing) > 1:
        yield writing.pop(0)
    return Change(["done"], *writing)


def run(
    scenario: Callable[[Session], Coroutine[Any, Any, None]],
    make_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> None:
    async def whole() -> None:
        session = Session()
        try:
            await asyncio.wait_for(scenario(session), 20)
        finally:
            await session.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(whole())


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


def test_what_is_stored_stays_stored_whatever_is_raised_behind_it() -> None:
    """Else it would be tried again, in halves and by Django."""

    def raising() -> None:
        raise RuntimeError("can't start new thread")

    async def scenario(session: Session) -> None:
        assert await session.transact(saying([(ADD, (1,))], on_commit=raising)) == []

    run(scenario)
    assert stored() == [1]


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
