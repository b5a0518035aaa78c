"""Whoever waits for PostgreSQL gives up when the time of his work is over."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from prometheus_client import REGISTRY

from devtools.testing.pipeline import settles
from eventsite.celery import EARLIER, app
from eventsite.postgresql.connection import PatientConnection
from feeds import ids
from outbox.conf import DrainPolicy
from outbox.database import patience
from outbox.database.errors import is_timeout, is_transient
from outbox.database.patience import Unanswered
from outbox.database.unit_of_work import NotStored, unit_of_work
from outbox.drain import settle
from outbox.drain.batch import drain_batch
from outbox.drain.state import DrainState
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery
from outbox.publish.events import publish
from outbox.tests.test_drain import Noted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _answered_again() -> Iterator[None]:
    yield
    connection.close()
    patience.note_answer()


def asked(sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def given_up(waited_for: str) -> float:
    found = REGISTRY.get_sample_value("database_given_up_total", {"waited_for": waited_for})
    return found or 0.0


@pytest.mark.parametrize("bounds", [{"seconds": 0.3}, {"each": 0.3}])
def test_a_statement_is_given_up_and_the_connection_with_it(bounds: dict[str, float]) -> None:
    before, session = given_up("answer"), asked("SELECT pg_backend_pid()")
    with patience.within(**bounds), pytest.raises(OperationalError) as raised:
        asked("SELECT pg_sleep(5)")
    assert isinstance(raised.value.__cause__, Unanswered)
    assert is_transient(raised.value)
    assert is_timeout(raised.value)  # an event may be to blame for it
    assert given_up("answer") == before + 1
    assert patience.is_silent()
    connection.close_if_unusable_or_obsolete()
    assert asked("SELECT pg_backend_pid()") != session
    assert not patience.is_silent()


def test_many_short_waits_pass_a_bound_for_each_of_them() -> None:
    with patience.within(each=1.0):
        for _ in range(4):
            asked("SELECT pg_sleep(0.3)")
    with patience.within(1.0):
        asked("SELECT pg_sleep(0.7)")
        with pytest.raises(OperationalError):
            asked("SELECT pg_sleep(0.7)")


def test_nothing_is_sent_when_the_time_is_over() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SEQUENCE times")
    try:
        with pytest.raises(OperationalError), patience.within(0):
            asked("SELECT nextval('times')")
        connection.close_if_unusable_or_obsolete()
        assert asked("SELECT is_called FROM times") is False
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP SEQUENCE times")


def test_a_change_that_is_given_up_before_commit_is_not_stored() -> None:
    with pytest.raises(NotStored), patience.within(0.3), unit_of_work():
        asked("SELECT pg_sleep(5)")
    connection.close_if_unusable_or_obsolete()
    with transaction.atomic():
        assert asked("SELECT 1") == 1


def test_the_narrower_bound_holds_and_threads_begin_without() -> None:
    assert patience.left() is None
    with patience.within(5):
        with patience.within(100, each=50):
            assert (patience.left() or 0) <= 5
        with patience.within(each=1):
            assert patience.left() == 1
        found: list[float | None] = []
        thread = threading.Thread(target=lambda: found.append(patience.left()))
        thread.start()
        thread.join()
        assert found == [None]
    assert patience.left() is None


def test_a_server_that_never_answers_a_new_connection() -> None:
    """As a stopped one: the kernel accepts. psycopg grants each address two seconds at least."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        before, begin = given_up("connect"), time.monotonic()
        with patience.within(0.5), pytest.raises(Unanswered):
            PatientConnection.connect(
                host="127.0.0.1,127.0.0.1,127.0.0.1", port=port, connect_timeout=3
            )
    assert time.monotonic() - begin < 5
    assert given_up("connect") == before + 1


@pytest.mark.parametrize(
    ("limit", "whole", "each"), [(8, 8, 8), (None, 15, 15), (60, 60, 15)], ids=str
)
def test_a_task_waits_less_than_its_time_limit(
    limit: int | None, whole: float, each: float
) -> None:
    """Else Celery would kill its process, and a long one would look stuck to the watchdog."""

    def look() -> tuple[float | None, float]:
        return patience.left(), patience._until.get() - time.monotonic()

    given = {} if limit is None else {"time_limit": limit}
    task: Any = app.task(look, name=f"look-{limit}", **given)  # type: ignore[call-overload]
    try:
        left, until = task.apply().get()
    finally:
        del app.tasks[task.name]
    assert left == pytest.approx(each - EARLIER, abs=0.3)
    assert until == pytest.approx(whole - EARLIER, abs=0.3)
    assert patience.left() is None


def test_the_thread_that_settles_has_the_time_that_is_left_to_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        producer, "send", lambda sent, **_: BatchDelivery(size=len(sent), acknowledged={0: 0})
    )
    monkeypatch.setattr(settle, "_SETTLE", "SELECT pg_sleep(2), %s, %s, %s")
    threads: list[str] = []
    give_up = patience.give_up

    def noted(waited_for: str) -> Unanswered:
        threads.append(threading.current_thread().name)
        return give_up(waited_for)

    monkeypatch.setattr(patience, "give_up", noted)
    with transaction.atomic():
        publish([Noted("k"), Noted("l")])
    drained = connection.cursor()  # the session is opened before the time begins
    with patience.within(0.5), pytest.raises(OperationalError) as raised, drained:
        # A batch of one part is settled without a thread.
        drain_batch(DrainState(), DrainPolicy(part_events=1))
    assert isinstance(raised.value.__cause__, Unanswered)
    assert threads[0].startswith("settle")


def test_the_thread_that_holds_a_node_asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def asks_somebody_silent(*args: object, **named: object) -> None:
        asked("SELECT pg_sleep(2)")

    monkeypatch.setattr(ids, "RENEW_SECONDS", 0.5)
    monkeypatch.setattr(ids, "hold_node", asks_somebody_silent)
    before = given_up("answer")
    try:
        with pytest.raises(ids.NoNode):
            ids.draw(wait=0)
        assert settles(lambda: given_up("answer") > before + 1)
    finally:
        ids.close()
