"""The connection that hot reads share, on the event loop, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import psycopg
import pytest
import uvloop
from django.db import connection

from devtools.testing.weather import Fault
from eventsite.web.hot_paths import session
from eventsite.web.hot_paths.session import Session
from eventsite.web.hot_paths.tests.steps import proxied, saying
from eventsite.web.hot_paths.wire import Wire
from outbox.database.round_trips import Row, Statement

pytestmark = pytest.mark.django_db(transaction=True)


async def setting(hot: Session, name: str) -> str:
    [(value,)] = await hot.rows(("SELECT current_setting(%s)", [name]))
    return str(value)


def end_session(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    connection.close()  # that of the thread


async def pid_of(hot: Session) -> int:
    [(pid,)] = await hot.rows(("SELECT pg_backend_pid()", ()))
    return int(pid)


def test_it_is_connected_like_djangos_own() -> None:
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "application_name")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(name) FROM unnest(%s::text[]) AS name", [[*names]])
        djangos = [value for (value,) in cursor.fetchall()]

    async def scenario() -> None:
        hot = Session()
        assert [await setting(hot, name) for name in names] == djangos
        assert await setting(hot, "TimeZone") == "UTC"
        assert await setting(hot, "plan_cache_mode") == "force_generic_plan"
        await hot.close()

    asyncio.run(scenario())


def test_a_connection_that_the_server_has_ended_is_replaced() -> None:
    async def scenario() -> None:
        hot = Session()
        first = await pid_of(hot)
        await asyncio.to_thread(end_session, first)
        assert await pid_of(hot) != first
        assert await setting(hot, "plan_cache_mode") == "force_generic_plan"
        await hot.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.SILENT])
def test_a_server_that_does_not_answer_is_an_error_and_asked_again_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Nobody waits for ever, and the connection with the statement in it is not used again."""

    async def scenario() -> None:
        hot = Session(patience=0.5)
        with proxied(monkeypatch) as proxy:
            before = await pid_of(hot)
            proxy.set(fault)
            with pytest.raises(psycopg.OperationalError):
                await pid_of(hot)
            proxy.set(Fault.NONE)
            assert await pid_of(hot) != before
            await hot.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.wait_for(scenario(), 20))


def test_a_connection_that_ends_under_a_read_is_replaced_and_it_is_read_once_more() -> None:
    async def scenario() -> None:
        hot = Session()
        first = await pid_of(hot)
        asked = asyncio.create_task(hot.rows(("SELECT pg_backend_pid(), pg_sleep(2)", ())))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(end_session, first)
        [(second, _)] = await asked
        assert second != first
        await hot.close()

    asyncio.run(scenario())


def test_a_read_that_takes_too_long_is_asked_once() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SEQUENCE times")

    async def scenario() -> None:
        hot = Session(patience=0.3)
        with pytest.raises(psycopg.OperationalError):
            await hot.rows(("SELECT nextval('times'), pg_sleep(0.6)", ()))
        await asyncio.sleep(0.5)  # until the server is done with it
        await hot.close()

    asyncio.run(scenario())
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value, is_called FROM times")
        assert cursor.fetchall() == [(1, True)]
        cursor.execute("DROP SEQUENCE times")


def test_what_the_server_refuses_is_asked_once() -> None:
    async def scenario() -> None:
        hot = Session()
        before = await pid_of(hot)
        await hot.rows(("CREATE TEMPORARY SEQUENCE times", ()))
        for statement, error in (
            ("SELECT nextval('times') / 0", psycopg.DataError),
            ("SELECT nextval('times'), pg_sleep(9)", psycopg.OperationalError),
        ):
            await hot.rows(("SELECT set_config('statement_timeout', '50', false)", ()))
            with pytest.raises(error):
                await hot.rows((statement, ()))
        assert await pid_of(hot) == before
        assert await hot.rows(("SELECT last_value FROM times", ())) == [(2,)]
        await hot.close()

    asyncio.run(scenario())


def test_plans_are_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for an empty table would read all of it later."""
    sent: list[Statement] = []
    trip = Wire.trip

    async def heard(wire: Wire, statements: Sequence[Statement]) -> list[Sequence[Row]]:
        sent.extend(statements)
        return await trip(wire, statements)

    async def scenario() -> None:
        monkeypatch.setattr(Wire, "trip", heard)
        hot = Session(plan_seconds=3600.0)  # however slow this machine is
        for _ in range(2):
            await setting(hot, "TimeZone")
        assert session.FORGET_PLANS not in sent
        hot._forget_at = 0.0
        for _ in range(2):
            await setting(hot, "TimeZone")
        assert sent.count(session.FORGET_PLANS) == 1
        hot._forget_at = 0.0
        for _ in range(2):
            await hot.transact(saying([("SELECT 1", ())]))
        assert sent.count(session.FORGET_PLANS) == 2
        await hot.close()

    asyncio.run(scenario())
