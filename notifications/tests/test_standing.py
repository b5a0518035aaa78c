"""Providers as people see them: the command, the admin's page, and the gauges of what waits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client
from django.utils import timezone

from notifications import metrics
from notifications.delivery import rows, standing
from notifications.delivery.breakers import Breakers
from notifications.delivery.measure import measure_waiting
from notifications.delivery.standing import standings
from notifications.models import Attempt, Notification
from notifications.providers.checks import check_providers
from notifications.tests.sending import accept, fresh_redis, providers, reload
from outbox.breaker.machine import CallOutcome

pytestmark = pytest.mark.django_db

A_MOMENT = timedelta(milliseconds=1)
PAGE = "/admin/notifications/providerhold/"


@pytest.fixture(autouse=True)
def two_providers() -> Iterator[None]:
    fresh_redis()
    url = "http://127.0.0.1:1"
    with providers(
        main={"kind": "webhook", "url": url}, spare={"kind": "log", "channels": ["sms"]}
    ):
        yield
    fresh_redis()


def fails(provider: str, channel: str) -> None:
    Breakers().store.report(
        f"{provider}:{channel}", [CallOutcome(str(number), 0, False) for number in range(5)]
    )


def asks_to_wait(provider: str, channel: str) -> None:
    with transaction.atomic():
        rows.hold({(provider, channel): 60.0})


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("providers", *arguments, stdout=out)
    return out.getvalue()


class TestTheCommand:
    def test_it_lists_them_in_their_order(self) -> None:
        fails("main", "sms")
        asks_to_wait("spare", "sms")
        lines = command("list").splitlines()

        assert [line.split(",")[0] for line in lines] == [
            "sms    main (webhook)  open",
            "email  main (webhook)  closed",
            "push   main (webhook)  closed",
            "sms    spare (log)  closed",
        ]
        assert "probes in " in lines[0]
        assert "asked to wait " in lines[3]

    def test_a_reset_closes_and_ends_the_wait(self) -> None:
        fails("main", "sms")
        asks_to_wait("main", "sms")
        command("reset", "main", "sms", "--reason", "they mended it")

        first = standings()[0]
        assert (first.breaker, first.held_for) == ("closed", 0.0)

    def test_what_waits_for_a_hold_is_due_after_a_reset(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many there are; and nothing else that waits."""
        monkeypatch.setattr(standing, "RELEASED", 2)
        ahead = timezone.now() + timedelta(minutes=5)

        def waiting(
            provider: str = "main",
            *,
            waits_for: str = "held",
            channel: str = "sms",
            priority: str = "high",
        ) -> Notification:
            found = accept(
                channel=channel,
                priority=priority,
                due_at=ahead,
                waits_for=waits_for,
                attempt=2,
            )
            for number, called in ((1, "spare"), (2, provider)):
                Attempt.objects.create(notification=found, number=number, provider=called)
            return found

        held = [*(waiting() for _ in range(5)), waiting(priority="low")]
        others = [
            waiting("spare"),
            waiting(waits_for="retry"),
            waiting(channel="push"),
            waiting(priority="normal", channel="email"),
        ]
        asks_to_wait("main", "sms")
        command("reset", "main", "sms", "--reason", "they mended it")

        assert {(reload(each).due_at == ahead, reload(each).waits_for) for each in held} == {
            (False, "")
        }
        assert [reload(each).due_at for each in others] == [ahead] * len(others)
        assert rows.look("high", ["sms"], most=10).ready == {"sms": 5}

    def test_what_is_held_again_after_a_reset_stays_held(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a provider that asks again and again would never be let wait."""
        ahead = timezone.now() + timedelta(minutes=5)
        begin = standing._release

        def held_meanwhile(*given: Any, **named: Any) -> None:
            found = accept(
                due_at=ahead, waits_for="held", attempt=1, updated_at=named["held_until"] + A_MOMENT
            )
            Attempt.objects.create(notification=found, number=1, provider="main")
            begin(*given, **named)

        monkeypatch.setattr(standing, "_release", held_meanwhile)
        command("reset", "main", "sms", "--reason", "they mended it")
        assert Notification.objects.get().due_at == ahead

    def test_nobody_of_that_name(self) -> None:
        with pytest.raises(CommandError, match="No provider 'spare' serves the channel 'email'"):
            command("reset", "spare", "email", "--reason", "x")


class TestThePage:
    @pytest.fixture
    def admin(self, client: Client) -> Client:
        client.force_login(User.objects.create_superuser("boss", password="x"))
        return client

    def test_it_shows_and_resets(self, admin: Client) -> None:
        fails("main", "push")
        shown = admin.get(PAGE).content.decode()
        assert "<td>open, probes in " in shown

        data = {"provider": "main", "channel": "push", "reason": "mended"}
        assert admin.post(PAGE, data, follow=True).status_code == 200
        assert {each.breaker for each in standings()} == {"closed"}

    @pytest.mark.parametrize(
        "wrong", [{"reason": " "}, {"provider": "nobody"}, {"channel": "fax"}], ids=str
    )
    def test_what_cannot_be_reset(self, wrong: dict[str, str], admin: Client) -> None:
        fails("main", "push")
        data = {"provider": "main", "channel": "push", "reason": "mended"} | wrong
        assert admin.post(PAGE, data, follow=True).status_code == 200
        assert "open" in {each.breaker for each in standings()}

    def test_who_may_not(self, client: Client) -> None:
        client.force_login(User.objects.create_user("clerk", password="x", is_staff=True))
        assert client.get(PAGE).status_code == 403
        assert client.post(PAGE, {"provider": "main", "channel": "sms"}).status_code == 403


class TestTheGauges:
    def test_each_reason(self) -> None:
        now = timezone.now()
        ahead, ago = now + timedelta(minutes=5), now - timedelta(seconds=40)
        accept(channel="email", due_at=now)
        accept(channel="email", due_at=ahead, waits_for="retry")
        accept(channel="email", due_at=ahead, waits_for="held")
        accept(channel="email", ready=False, status="scheduled", scheduled_at=ahead)
        accept(channel="email", ready=False, status="scheduled", scheduled_at=ago)
        accept(channel="email", ready=False, created_at=ago)
        accept(channel="push", due_at=now)
        fails("main", "push")
        asks_to_wait("spare", "sms")
        fails("main", "sms")
        accept(due_at=now)
        measure_waiting(Breakers())

        def waiting(channel: str) -> dict[str, float]:
            found = {
                reason: metrics.WAITING.labels(channel, "high", reason)._value.get()
                for reason in ("ready", "retry", "held", "breaker", "scheduled", "paced")
            }
            return {reason: count for reason, count in found.items() if count}

        assert waiting("email") == {"ready": 1, "retry": 1, "held": 1, "scheduled": 2}
        assert waiting("push") == {"breaker": 1}
        assert waiting("sms") == {"held": 1}  # its first provider fails, the second asked to wait
        late = metrics.OLDEST_WAITING.labels("email", "high", "scheduled")._value.get()
        assert 39 < late < 60
        assert metrics.NOT_READY._value.get() == 1
        assert metrics.NOT_READY_AGE._value.get() > 39
        assert metrics.BREAKER_STATE.labels("main", "push")._value.get() == 2

    @pytest.mark.parametrize(
        ("sender", "reason"),
        [("high", "paced"), ("low", "ready"), (None, "ready")],
        ids=["its own", "another's", "none"],
    )
    def test_what_nobody_sends_is_not_paced(
        self, sender: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However much there is: the alarm about senders is by the reason `ready`."""
        monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 1)
        for _ in range(2):
            accept(channel="email", due_at=timezone.now())
        if sender:
            rows.keep_sender(str(UUID(int=1)), f"{sender}@here:1")
        measure_waiting(Breakers())
        assert metrics.WAITING.labels("email", "high", reason)._value.get() == 2

    def test_what_is_over_is_zero_again(self) -> None:
        accept(channel="email", due_at=timezone.now()).delete()
        measure_waiting(Breakers())
        assert metrics.WAITING.labels("email", "high", "ready")._value.get() == 0


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({"a": {"kind": "log"}}, []),
        ({"a": {"kind": "pigeon"}}, ["notifications.E001"]),
        ({"a": {"kind": "log", "channels": ["sms"]}}, ["notifications.W001"]),
    ],
    ids=str,
)
def test_the_check(given: dict[str, dict[str, Any]], ids: list[str]) -> None:
    with providers(**given):
        assert [found.id for found in check_providers()] == ids
