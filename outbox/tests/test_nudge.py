"""The nudge: sent after commits only, debounced, and never in anybody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import OperationalError, transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from devtools.testing.patience import PATIENCE
from outbox import metrics, tasks
from outbox.conf import DRAIN
from outbox.drain.run import Drain, DrainReport
from outbox.models import OutboxEvent
from outbox.publish import nudge
from outbox.publish.events import publish
from outbox.tests.test_drain import Noted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the tasks that were sent, by a nudger of this test alone."""
    names: list[str] = []
    of_others = {thread for thread in threading.enumerate() if thread.name == "outbox-nudge"}

    def send_task(name: str, **options: Any) -> None:
        if threading.current_thread() not in of_others:
            names.append(name)

    monkeypatch.setattr(current_app, "send_task", send_task)
    monkeypatch.setattr(nudge, "_nudger", nudge.Nudger("outbox-nudge", nudge._attempt))
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        broker.delete("outbox:nudge", "outbox")  # other tests leave nudges that nobody takes
        yield names
        broker.delete("outbox:nudge")


def commit() -> None:
    with transaction.atomic():
        publish([Noted("k")])


def soon(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.01)
    return condition()


def long_enough() -> None:
    time.sleep(3 * DRAIN.nudge_interval)


def test_a_commit_sends_one(sent: list[str]) -> None:
    commit()
    assert soon(lambda: sent == ["outbox.drain_outbox"])


def test_a_rollback_sends_none(sent: list[str]) -> None:
    with transaction.atomic():
        publish([Noted("k")])
        transaction.set_rollback(True)
    long_enough()
    assert sent == []


def test_two_commits_within_the_interval_send_one(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # so long that two commits of a slow machine are within it
    monkeypatch.setattr(nudge, "DRAIN", replace(DRAIN, nudge_debounce=PATIENCE))
    commit()
    commit()
    assert soon(lambda: len(sent) == 1)
    commit()
    long_enough()
    assert len(sent) == 1


def test_a_drain_that_begins_lets_the_next_through(sent: list[str]) -> None:
    commit()
    assert soon(lambda: len(sent) == 1)
    nudge.take_nudge()
    commit()
    assert soon(lambda: len(sent) == 2)


def test_a_long_queue_gets_no_more(sent: list[str]) -> None:
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        broker.rpush("outbox", *["{}"] * (DRAIN.queue_bound + 1))
        try:
            commit()
            long_enough()
            assert sent == []
        finally:
            broker.delete("outbox")


def test_redis_away_slows_nobody(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # without the library's own retries, whose backoff would only make the test wait
    away = redis.Redis(host="127.0.0.1", port=9, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(nudge, "_redis", lambda: away)
    failures = metrics.NUDGES_FAILED._value.get
    before = failures()
    began = time.monotonic()
    for _ in range(5):
        commit()
    assert time.monotonic() - began < 5
    assert soon(lambda: failures() > before)
    nudge.take_nudge()
    assert (sent, OutboxEvent.objects.count()) == ([], 5)


class Looks:
    """Drains that settle so many events each; `held`: whether nudges were, at each of them."""

    def __init__(
        self,
        *settled: int | Exception,
        then: Callable[[], None] = lambda: None,
        stopped: str = "",
    ) -> None:
        self._settled = list(settled)
        self._then = then
        self._stopped = stopped
        self.held: list[bool] = []

    def __call__(self, *, seconds: float | None = None) -> DrainReport:
        self.held.append(asked_already())
        self._then()
        settled = self._settled.pop(0)
        if isinstance(settled, Exception):
            raise settled
        return DrainReport(settled=settled, stopped=self._stopped)


def asked_already() -> bool:
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        return bool(broker.exists("outbox:nudge"))


def looking(
    monkeypatch: pytest.MonkeyPatch, looks: Looks, *, linger: float = DRAIN.linger
) -> Looks:
    drain = Drain(replace(DRAIN, linger=linger))
    monkeypatch.setattr(drain, "run", looks)
    monkeypatch.setattr(tasks, "_drain", drain)
    # so that no stall of this test outlasts it
    monkeypatch.setattr(nudge, "DRAIN", replace(DRAIN, nudge_debounce=60.0))
    return looks


def test_a_drain_stays_while_there_is_something(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looking(monkeypatch, Looks(9, 2, 0, 1))
    assert tasks.drain_outbox(asked=True) == 12
    assert seen.held == [False, True, True, False]  # the last look is for who found it held
    assert not asked_already()


def test_a_drain_stays_for_a_moment_only(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looking(monkeypatch, Looks(*[9] * 1000), linger=3 * DRAIN.linger_pause)
    assert 3 <= tasks.drain_outbox(asked=True) // 9 <= 5
    assert not seen.held[-1]


@pytest.mark.parametrize("settled", [0, DRAIN.linger_from - 1])
def test_a_drain_that_finds_little_does_not_stay(
    settled: int, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looking(monkeypatch, Looks(settled))
    assert tasks.drain_outbox(asked=True) == settled
    assert seen.held == [False]


def test_a_drain_that_was_stopped_does_not_stay(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is up, or Kafka has failed: its task has a bound of its own."""
    seen = looking(monkeypatch, Looks(9000, stopped="time is up"))
    assert tasks.drain_outbox(asked=True) == 9000
    assert seen.held == [False]


def test_a_drain_that_stays_is_not_asked(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def commit_and_wait() -> None:
        if asked_already():
            commit()
            long_enough()

    looking(monkeypatch, Looks(9, 1, 0, 0, then=commit_and_wait))
    tasks.drain_outbox(asked=True)
    assert sent == []
    commit()
    assert soon(lambda: len(sent) == 1)


def test_where_somebody_has_asked_a_drain_stays_too(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would hardly ever: where events keep coming, somebody asks while it drains."""

    def commit_and_see() -> None:
        if not sent:
            commit()
            assert soon(lambda: len(sent) == 1)

    seen = looking(monkeypatch, Looks(9, 0, 0, then=commit_and_see))
    assert tasks.drain_outbox(asked=True) == 9
    assert (seen.held, sent) == ([False, True, False], ["outbox.drain_outbox"])


def test_without_redis_a_drain_does_not_stay(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody would go on asking."""
    seen = looking(monkeypatch, Looks(9))
    away = redis.Redis(host="127.0.0.1", port=9, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(nudge, "_redis", lambda: away)
    assert tasks.drain_outbox(asked=True) == 9
    assert seen.held == [False]


def test_a_drain_that_fails_while_it_stays_lets_others_ask(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looking(monkeypatch, Looks(9, OperationalError("away")))
    assert tasks.drain_outbox(asked=True) == 0
    assert (seen.held, asked_already()) == ([False, True], False)


def test_beats_drain_leaves_the_nudge_to_who_was_asked(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looking(monkeypatch, Looks(2))
    commit()
    assert soon(lambda: len(sent) == 1)
    assert tasks.drain_outbox() == 2
    assert (seen.held, asked_already()) == ([True], True)
