"""Delivery from rows that are ready to a real provider, with senders in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from prometheus_client import REGISTRY

from devtools.provider.client import ProviderProcess
from devtools.provider.server import AnswerRule
from devtools.testing.receiver import spans_in_memory
from notifications.delivery import rows, sender
from notifications.delivery.breakers import Breakers
from notifications.delivery.pace import Pace
from notifications.models import Notification
from notifications.tests.sending import (
    accept,
    attempts_of,
    changes_of,
    deliver,
    due_now,
    keys_of,
    outcomes_of,
    providers,
    reload,
    webhook,
)
from outbox.models import DeadLetter, OutboxEvent
from outbox.pacing.limiter import Draw
from restapi.tests.sessions import other_session

pytestmark = pytest.mark.django_db(transaction=True)


class TestDelivered:
    def test_what_is_written(self, provider: ProviderProcess) -> None:
        before = accept()
        assert deliver() == 1
        after, [attempt] = reload(before), attempts_of(before)

        assert after.status == "delivered"
        assert after.sent_at is not None
        assert after.provider_message_id is not None
        assert (after.retry_count, after.due_at, after.error_message) == (0, None, None)
        assert (attempt.provider, attempt.outcome, attempt.status_code) == (
            "main",
            "delivered",
            200,
        )
        assert attempt.latency_ms is not None
        assert keys_of(provider, before) == [str(before.id)]
        assert changes_of(before) == ["processing", "delivered"]

    def test_what_is_counted(self, provider: ProviderProcess) -> None:
        def counted() -> tuple[float, ...]:
            provider_ = {"channel": "sms", "provider": "main"}
            return tuple(
                REGISTRY.get_sample_value(name, labels) or 0.0
                for name, labels in (
                    ("notification_attempts_total", {**provider_, "outcome": "delivered"}),
                    ("notification_attempts_total", {**provider_, "outcome": "refused"}),
                    ("notification_send_seconds_count", provider_),
                    ("notification_delivery_seconds_count", {"priority": "high"}),
                )
            )

        before = counted()
        for recipient in ("good", "good", "bad"):
            accept(recipient)
        provider.rules(AnswerRule(recipient="bad", status=400))
        deliver()
        now = counted()
        assert [after - first for first, after in zip(before, now, strict=True)] == [2, 1, 3, 2]

    def test_many_at_once(self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every channel; results that come together are written together."""
        settle, written = rows.settle, list[int]()

        def settling(results: Any) -> Any:
            written.append(len(results))
            return settle(results)

        monkeypatch.setattr(rows, "settle", settling)
        made = [
            accept(f"r{number}", channel=channel)
            for number, channel in enumerate(["sms", "email", "push"] * 100)
        ]
        provider.rules(AnswerRule(after=0.05))
        assert deliver() == 300

        arrived = Counter(each.key for each in provider.arrivals())
        assert all(arrived[str(each.id)] == 1 for each in made)
        assert not Notification.objects.exclude(status="delivered").exists()
        assert sum(written) == 300
        assert len(written) < 100

    def test_what_is_not_due_is_left(self, provider: ProviderProcess) -> None:
        later = timezone.now() + timedelta(minutes=1)
        left = [
            accept(ready=False),
            accept(due_at=later),
            accept(ready=False, status="scheduled", scheduled_at=later),
            accept(ready=False, status="cancelled"),
            accept(expires_at=timezone.now()),
            accept(priority="low"),
        ]
        assert deliver() == 0
        assert not any(keys_of(provider, each) for each in left)

    def test_after_a_retry_by_hand_the_key_is_another(self, provider: ProviderProcess) -> None:
        notification = accept(round=2, attempt=5)
        deliver()
        assert keys_of(provider, notification) == [f"{notification.id}.2"]
        assert attempts_of(notification)[0].number == 6

    def test_the_call_is_a_span_of_the_request(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        spans = spans_in_memory(monkeypatch)
        accept(traceparent=traceparent)
        deliver()
        [span] = [each for each in spans.get_finished_spans() if each.name == "send sms"]

        assert span.context is not None
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
        sent = provider.arrivals()[-1].headers["traceparent"]
        assert sent == f"00-0af7651916cd43dd8448eb211c80319c-{span.context.span_id:016x}-01"


class TestOutcomes:
    def test_what_passes_is_tried_again_until_the_attempts_are_used_up(
        self, provider: ProviderProcess
    ) -> None:
        notification = accept(priority="normal")
        provider.rules(AnswerRule(status=500))
        waits = []
        for _ in range(3):
            deliver("normal")
            after = reload(notification)
            if after.due_at:
                waits.append((after.due_at - after.updated_at).total_seconds())
            due_now()

        assert outcomes_of(notification) == ["failed"] * 3
        assert (after.status, after.retry_count, after.due_at) == ("failed", 3, None)
        assert after.error_message == "The provider answered 500."
        assert after.failed_at is not None
        assert 1.59 <= waits[0] <= 2.41
        assert 6.39 <= waits[1] <= 9.61
        assert keys_of(provider, notification) == [str(notification.id)] * 3
        assert deliver("normal") == 0
        statuses = ["processing", "pending", "processing", "pending", "processing", "failed"]
        assert changes_of(notification) == statuses

    def test_what_is_refused_has_failed_at_once(self, provider: ProviderProcess) -> None:
        notification = accept()
        provider.rules(AnswerRule(status=422))
        deliver()

        after = reload(notification)
        assert (after.status, after.retry_count) == ("failed", 1)
        assert outcomes_of(notification) == ["refused"]
        # It is its own dead letter: there is no other.
        assert not DeadLetter.objects.exists()
        assert not OutboxEvent.objects.filter(topic__endswith=".dlq").exists()

    def test_a_timeout_and_a_cut_are_transient(self, provider: ProviderProcess) -> None:
        hung, cut = accept("hung"), accept("cut")
        provider.rules(
            AnswerRule(recipient="hung", do="hang"), AnswerRule(recipient="cut", do="cut")
        )
        with providers(main=webhook(provider, timeout=0.5)):
            deliver()

        for notification in (hung, cut):
            after = reload(notification)
            assert (after.status, after.retry_count, after.waits_for) == ("pending", 1, "retry")
            assert attempts_of(notification)[0].next_attempt_at == after.due_at

    def test_one_that_fails_holds_up_no_other(self, provider: ProviderProcess) -> None:
        failing = [accept("bad") for _ in range(4)]
        good = [accept("good") for _ in range(50)]
        provider.rules(AnswerRule(recipient="bad", status=500))
        deliver()

        assert {reload(each).status for each in good} == {"delivered"}
        assert {reload(each).status for each in failing} == {"pending"}

    def test_many_answers_of_every_kind(self, provider: ProviderProcess) -> None:
        kinds = {"a": 200, "b": 400, "c": 500, "d": 204, "e": 302, "f": 404}
        made = {name: accept(name, channel="push") for name in kinds}
        provider.rules(*(AnswerRule(recipient=name, status=code) for name, code in kinds.items()))
        deliver()

        found = {name: reload(each).status for name, each in made.items()}
        assert found == {
            "a": "delivered",
            "b": "failed",
            "c": "pending",
            "d": "delivered",
            "e": "pending",
            "f": "failed",
        }


class TestHolds:
    def test_who_is_asked_to_wait_waits_with_the_channel_and_uses_up_nothing(
        self, provider: ProviderProcess
    ) -> None:
        first = accept()
        provider.rules(AnswerRule(channel="sms", status=429, headers={"Retry-After": "30"}))
        deliver()
        after = reload(first)
        second, other = accept(), accept(channel="email")
        deliver()

        assert (after.status, after.retry_count, after.waits_for) == ("pending", 0, "held")
        assert after.due_at is not None
        assert 29.9 < (after.due_at - after.updated_at).total_seconds() <= 33
        assert outcomes_of(first) == ["held"]
        assert keys_of(provider, second) == []
        assert reload(other).status == "delivered"

        due_now()
        provider.rules()
        deliver()
        assert [reload(each).status for each in (first, second)] == ["delivered"] * 2

    def test_a_shorter_hold_does_not_end_a_longer_one(self, provider: ProviderProcess) -> None:
        with transaction.atomic():
            rows.hold({("main", "sms"): 60.0})
            rows.hold({("main", "sms"): 1.0})
        assert rows.look("high", ["sms"], most=1).holds["main", "sms"] > 50


class TestTokens:
    def test_they_are_drawn_before_the_claim(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever waits for his turn has no lease that runs."""
        draw, claim, unused = Pace.draw, rows.claim, Counter[str]()

        def drawing(pace: Pace, channel: str, wanted: int, *, senders: int) -> Draw:
            drawn = draw(pace, channel, wanted, senders=senders)
            unused[channel] += drawn.tokens
            return drawn

        def claiming(priority: str, counts: Mapping[str, int], *, seconds: float) -> Any:
            unused.subtract(counts)
            assert min(unused.values()) >= 0, "claimed without a token"
            return claim(priority, counts, seconds=seconds)

        monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 200)
        monkeypatch.setattr(Pace, "draw", drawing)
        monkeypatch.setattr(rows, "claim", claiming)
        for number in range(90):
            accept(f"r{number}", channel=("sms", "email", "push")[number % 3])
        assert deliver() == 90

    def test_who_has_none_sleeps_until_there_may_be_some(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One a second: so often it looks, give or take; a slow machine only looks less often."""
        look, looks = rows.look, list[int]()

        def looking(*arguments: Any, **options: Any) -> rows.Ready:
            looks.append(1)
            return look(*arguments, **options)

        monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 1)
        monkeypatch.setattr(sender, "RUN_SECONDS", 2.0)
        monkeypatch.setattr(rows, "look", looking)
        for number in range(9):
            accept(f"r{number}")
        assert 1 <= deliver() <= 4
        assert len(looks) <= 9

    def test_those_of_what_another_holds_are_given_back(self, provider: ProviderProcess) -> None:
        held = accept("held")
        accept("free")
        with other_session() as other, other.transaction():
            other.execute("SELECT FROM notifications WHERE id = %s FOR UPDATE", (held.id,))
            assert deliver() == 1
        with redis.Redis.from_url(settings.REDIS_URL) as server:
            given: Any = server.hvals("pacing:{sms}:given")
        counts = [[int(part) for part in each.split(b":")] for each in given]
        assert sum(drawn - sum(back) for drawn, *back in counts) == 1
        assert sum(drawn for drawn, *_ in counts) > 1


class TestBreaker:
    def test_it_opens_and_leaves_the_rest_waiting(self, provider: ProviderProcess) -> None:
        provider.rules(AnswerRule(channel="sms", status=503))
        for _ in range(5):
            accept("down")
        deliver()
        waiting, other = accept(), accept(channel="email")
        deliver()

        assert reload(waiting).status == "pending"
        assert outcomes_of(waiting) == []
        assert reload(other).status == "delivered"

    def test_the_next_provider_takes_over(
        self, provider: ProviderProcess, running_provider: ProviderProcess
    ) -> None:
        spare = webhook(running_provider, url=running_provider.url + "/spare")
        with providers(main=webhook(provider), spare=spare):
            provider.rules(AnswerRule(path="/send", status=503))
            for _ in range(5):
                accept("down")
            deliver()
            notification = accept()
            deliver()

            assert attempts_of(notification)[0].provider == "spare"
            assert reload(notification).status == "delivered"

    def test_a_failed_probe_uses_up_no_attempt(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider.rules(AnswerRule(status=503))
        for _ in range(5):
            accept("down", priority="low")
        deliver("low")
        half_open(monkeypatch)
        probe = [accept("probe") for _ in range(10)]
        deliver()

        assert Counter(str(outcomes_of(each)) for each in probe) == {"['held']": 3, "[]": 7}
        assert {reload(each).retry_count for each in probe} == {0}

    def test_three_probes_close_it(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider.rules(AnswerRule(status=503))
        for _ in range(5):
            accept("down", priority="low")
        deliver("low")
        half_open(monkeypatch)
        provider.rules()
        probes = [accept("probe") for _ in range(10)]
        while deliver():
            pass  # a sender may leave before the results of the probes are written

        assert {reload(each).status for each in probes} == {"delivered"}

    def test_what_concerns_one_message_does_not_count(self, provider: ProviderProcess) -> None:
        provider.rules(AnswerRule(status=422))
        for _ in range(30):
            accept("bad")
        deliver()
        provider.rules()
        notification = accept()
        deliver()
        assert reload(notification).status == "delivered"


def half_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 30 s later."""
    store = Breakers().store
    name = "main:sms"
    assert store.look([name])[name].phase == "open"
    state = store._read([name])[0][name]
    assert state.opened_at is not None
    moved = msgspec.structs.replace(state, opened_at=state.opened_at - 30.0)
    store._server.set(f"notifications:breaker:{name}", msgspec.json.encode(moved))
