"""Redis lost and emptied under a sender that runs, with senders in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from devtools.provider.client import ProviderProcess, provider_process
from devtools.testing.pipeline import settles
from devtools.testing.weather import Fault, Proxy, proxy_to
from notifications import metrics, tasks
from notifications.delivery import sender
from notifications.delivery.pace import Pace
from notifications.models import Notification
from notifications.tests.sending import accept, deliver, fresh_redis, providers, senders, webhook
from outbox import redis_client
from outbox.pacing.limiter import Draw
from outbox.publish import nudge as outbox_nudge

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def provider() -> Iterator[ProviderProcess]:
    fresh_redis()
    with provider_process() as running, providers(main=webhook(running)), senders():
        yield running


@pytest.fixture
def way(provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to Redis, which can be cut."""
    address = urlsplit(settings.REDIS_URL)
    with proxy_to(address.hostname or "", address.port or 6379) as proxy:
        monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{proxy.port}/0")
        monkeypatch.setattr(sender, "RUN_SECONDS", 60.0)
        monkeypatch.setattr(sender, "GIVE_UP_SECONDS", 90.0)
        monkeypatch.setattr(sender, "LINGER_SECONDS", 0.3)
        _connect_anew()
        yield proxy
    monkeypatch.undo()
    _connect_anew()


def _connect_anew() -> None:
    outbox_nudge._redis.cache_clear()
    redis_client.shared.cache_clear()


class Given(NamedTuple):
    """Tokens of a draw, and the moments around it."""

    began: float
    ended: float
    tokens: int


def draws_of(
    monkeypatch: pytest.MonkeyPatch, *, after: int, then: Callable[[], None]
) -> list[Given]:
    """All draws of the sender. `then` is done once, when `after` tokens have been given."""
    draw, given = Pace.draw, list[Given]()
    to_do = [then]

    def drawn(pace: Pace, channel: str, wanted: int, *, senders: int) -> Draw:
        began = time.monotonic()
        found = draw(pace, channel, wanted, senders=senders)
        given.append(Given(began, time.monotonic(), found.tokens))
        if to_do and sum(each.tokens for each in given) >= after:
            to_do.pop()()
        return found

    monkeypatch.setattr(Pace, "draw", drawn)
    return given


def most_in_a_second(given: Sequence[Given]) -> int:
    """Tokens that were surely given within one second: by the draws and not by what arrived, which says
    how busy the machine is."""
    return max(
        sum(each.tokens for each in given[place:] if each.ended <= first.began + 1.0)
        for place, first in enumerate(given)
    )


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.SILENT])
def test_a_sender_that_runs_goes_on_at_its_share(
    fault: Fault, provider: ProviderProcess, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five senders are alive, so a fifth of the limit is its own."""
    monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 100)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notification_senders (id, name, seen_at)"
            " SELECT gen_random_uuid(), 'other', now() + interval '1 hour'"
            " FROM generate_series(1, 4)"
        )
    for number in range(80):
        accept(str(number))
    alone_from: list[int] = []

    def lose() -> None:
        way.set(fault)
        alone_from.append(len(given))

    given = draws_of(monkeypatch, after=30, then=lose)
    assert deliver() == 80

    alone = given[alone_from[0] :]
    assert sum(each.tokens for each in alone) >= 40
    assert most_in_a_second(alone) <= 22  # twenty, and a slice that waited
    assert metrics.PACED_WITHOUT_REDIS._value.get() == 1
    assert Notification.objects.filter(status="delivered").count() == 80
    assert len(provider.arrivals()) == 80

    way.set(Fault.NONE)
    accept("later")
    assert settles(lambda: tasks.deliver_high() > 0)
    assert metrics.PACED_WITHOUT_REDIS._value.get() == 0


def test_no_new_one_begins(provider: ProviderProcess, way: Proxy) -> None:
    accept()
    way.set(Fault.AWAY)
    assert tasks.deliver_high() == 0
    assert provider.arrivals() == []


def test_emptied_in_the_middle_it_paces_on(
    provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets begin empty: no second's worth is there at once beside what was just sent."""
    monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 50)
    monkeypatch.setattr(sender, "RUN_SECONDS", 60.0)
    monkeypatch.setattr(sender, "GIVE_UP_SECONDS", 90.0)
    for number in range(100):
        accept(str(number))
    given = draws_of(monkeypatch, after=40, then=fresh_redis)

    assert deliver() == 100
    assert most_in_a_second(given) <= 55  # fifty, and a slice that waited


def test_senders_keep_to_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a process of its own, as far as they know; the limit is of the channel."""
    fresh_redis()
    monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 50)
    paces = [Pace(priority) for priority in ("high", "normal", "low", "high")]
    given = draws_of(monkeypatch, after=0, then=lambda: None)
    while sum(each.tokens for each in given) < 75:
        for pace in paces:
            pace.draw("sms", 10, senders=4)
    assert most_in_a_second(given) <= 50
