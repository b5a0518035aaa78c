"""What a writer is told when the database fails: what became of the change, and nothing else.

Nothing here is simulated: PostgreSQL itself refuses, waits in vain or loses the session.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import IntegrityError, connection

from orders.services import place_orders
from orders.tests.samples import order
from outbox.database.unit_of_work import NotStored, OutcomeUnknown, unit_of_work
from restapi.tests.sessions import other_session
from restapi.tests.tables import row_counts

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def at_commit(body: str) -> Iterator[None]:
    """Run PL/pgSQL inside COMMIT, whenever an order was written: a deferred constraint trigger."""
    with other_session() as session:
        session.execute(f"""
            CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN {body}; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON orders
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()
            """)
        try:
            yield
        finally:
            session.execute("DROP FUNCTION at_commit CASCADE")


def backend_pid() -> int:
    connection.ensure_connection()
    assert connection.connection is not None
    return int(connection.connection.info.backend_pid)


def terminate_when_it_sleeps(pid: int, terminated: threading.Event) -> None:
    """End a session as soon as it is inside pg_sleep; gives up after 10 s."""
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    with other_session() as session:
        for _ in range(500):
            [found] = session.execute(sleeping, [pid]).fetchone() or [0]
            if found:
                session.execute("SELECT pg_terminate_backend(%s)", [pid])
                terminated.set()
                return
            session.execute("SELECT pg_sleep(0.02)")


def test_session_lost_before_commit_is_not_stored() -> None:
    before = row_counts()
    with pytest.raises(NotStored):
        _place_after_losing_the_session()
    assert row_counts() == before


def _place_after_losing_the_session() -> None:
    with unit_of_work(), other_session() as session:
        session.execute("SELECT pg_terminate_backend(%s, 5000)", [backend_pid()])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


def test_a_lock_that_does_not_come_is_not_stored() -> None:
    before = row_counts()
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '100ms'")
    try:
        with other_session() as session, session.transaction():
            session.execute("LOCK TABLE event_outbox")
            with pytest.raises(NotStored, match="lock timeout"):
                place_orders([order()])
    finally:
        connection.close()
    assert row_counts() == before


def test_commit_refused_by_the_server_is_not_stored() -> None:
    before = row_counts()
    with at_commit("RAISE EXCEPTION 'no' USING ERRCODE = '40001'"), pytest.raises(NotStored):
        place_orders([order()])
    assert row_counts() == before


def test_a_server_that_takes_no_writes_is_not_stored() -> None:
    """A standby, in the middle of a failover."""
    before = row_counts()
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    try:
        with pytest.raises(NotStored, match="read-only"):
            place_orders([order()])
    finally:
        connection.close()
    assert row_counts() == before


def test_constraint_that_fails_at_commit_is_the_callers_error() -> None:
    before = row_counts()
    refuse = "RAISE EXCEPTION 'no' USING ERRCODE = '23514'"
    with at_commit(refuse), pytest.raises(IntegrityError):
        place_orders([order()])
    assert row_counts() == before


def test_session_lost_at_commit_is_unknown() -> None:
    before = row_counts()
    terminated = threading.Event()
    pid = backend_pid()
    with at_commit("PERFORM pg_sleep(20)"):
        killer = threading.Thread(target=terminate_when_it_sleeps, args=(pid, terminated))
        killer.start()
        with pytest.raises(OutcomeUnknown) as raised:
            place_orders([order()])
        killer.join()
    assert terminated.is_set()
    assert raised.value.outcome == "unknown"
    assert row_counts() == before  # here it was not stored; the caller could not know


def test_the_next_order_after_a_lost_session_is_stored() -> None:
    with pytest.raises(NotStored):
        _place_after_losing_the_session()
    before = row_counts()["orders"]
    place_orders([order()])
    assert row_counts()["orders"] == before + 1


@pytest.mark.parametrize("asks_again", [True, False])
def test_session_ended_for_idling_is_not_stored(asks_again: bool) -> None:
    before = row_counts()
    with pytest.raises(NotStored):
        _place_and_idle(asks_again=asks_again)
    assert row_counts() == before


def _place_and_idle(*, asks_again: bool) -> None:
    with unit_of_work(), connection.cursor() as cursor:
        place_orders([order()])
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
        time.sleep(0.5)
        if asks_again:
            cursor.execute("SELECT 1")
