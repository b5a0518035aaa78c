"""Senders that are killed or frozen in a send, as real workers; and what those say who come back."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from django.db import connection

from devtools.provider.client import ProviderProcess, provider_process
from devtools.provider.server import AnswerRule
from devtools.testing.pipeline import settles
from devtools.testing.processes import Process, running_together, spec_of
from notifications.delivery import sender, times
from notifications.delivery.turns import nudge
from notifications.models import Attempt, Notification
from notifications.tests.sending import (
    accept,
    deliver,
    due_now,
    fresh_redis,
    outcomes_of,
    providers,
    reload,
    senders,
    webhook,
)

pytestmark = pytest.mark.django_db(transaction=True)
COUNT = 5


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with provider_process() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(provider: ProviderProcess) -> None:
    fresh_redis()
    provider.rules()


def worker(provider: ProviderProcess) -> AbstractContextManager[list[Process]]:
    given = json.dumps({"main": webhook(provider)})
    return running_together([spec_of("worker-notifications-high", PROVIDERS=given)])


def leases_end() -> None:
    """As fifteen seconds later."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notifications SET due_at = clock_timestamp() WHERE status = 'processing'"
        )
    assert times.close_lapsed() == COUNT
    due_now()


def send_again(provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sender takes them up; what the provider still held is answered."""
    monkeypatch.setattr(sender, "LINGER_SECONDS", 0.1)
    fresh_redis()  # the turn of who is gone has ended
    provider.rules()
    with providers(main=webhook(provider)), senders():
        assert deliver() == COUNT


def under_way(provider: ProviderProcess, made: list[Notification]) -> bool:
    arrived = {arrival.key for arrival in provider.arrivals()}
    return {str(each.id) for each in made} <= arrived


def test_a_worker_that_is_killed_in_a_send(
    provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost; what the provider had may come twice, under the same key."""
    provider.rules(AnswerRule(do="hang"))
    made = [accept(str(number)) for number in range(COUNT)]
    with worker(provider) as [process]:
        nudge("high")
        assert settles(lambda: under_way(provider, made))
        process.kill()
    assert {reload(each).status for each in made} == {"processing"}
    assert {str(outcomes_of(each)) for each in made} == {"[None]"}
    leases_end()
    send_again(provider, monkeypatch)

    assert {reload(each).status for each in made} == {"delivered"}
    assert {str(outcomes_of(each)) for each in made} == {"['unknown', 'delivered']"}
    arrived = Counter(arrival.key for arrival in provider.arrivals())
    assert [arrived[str(each.id)] for each in made] == [2] * COUNT


def test_a_worker_that_is_frozen_in_a_send_reports_too_late(
    provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.rules(AnswerRule(do="hold"))
    made = [accept(str(number)) for number in range(COUNT)]
    with worker(provider) as [process]:
        nudge("high")
        assert settles(lambda: under_way(provider, made))
        os.killpg(process.pid, signal.SIGSTOP)
        leases_end()
        send_again(provider, monkeypatch)
        before = {each.id: reload(each).sent_at for each in made}
        os.killpg(process.pid, signal.SIGCONT)
        assert settles(lambda: Attempt.objects.filter(outcome="late").count() == COUNT)

    assert {each.id: reload(each).sent_at for each in made} == before
    assert {str(outcomes_of(each)) for each in made} == {"['late', 'delivered']"}
