"""The nudge: sent after commits only, debounced, and never in anybody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from outbox import metrics, nudge
from outbox.conf import DRAIN
from outbox.models import OutboxEvent
from outbox.services import publish
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
    monkeypatch.setattr(nudge, "_nudger", None)
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        broker.delete("outbox:nudge", "outbox")  # other tests leave nudges that nobody takes
        yield names
        broker.delete("outbox:nudge")


def commit() -> None:
    with transaction.atomic():
        publish([Noted("k")])


def soon(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 3
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


def test_two_commits_within_the_interval_send_one(sent: list[str]) -> None:
    commit()
    commit()
    assert soon(lambda: len(sent) == 1)
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
    assert time.monotonic() - began < 0.5
    assert soon(lambda: failures() > before)
    nudge.take_nudge()
    assert (sent, OutboxEvent.objects.count()) == ([], 5)
