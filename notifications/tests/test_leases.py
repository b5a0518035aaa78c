"""What keeps a notification with one sender: leases, cancels, bounds of what is under way, time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from devtools.provider.client import ProviderProcess
from devtools.provider.server import AnswerRule
from devtools.testing.pipeline import settles
from notifications import metrics, services
from notifications.delivery import rows, rules, sender, times
from notifications.delivery.rounds import Call, Done, Rounds
from notifications.delivery.turns import Turn
from notifications.letters import EVERYBODY
from notifications.models import Attempt, Notification
from notifications.providers.message import ProviderAnswer
from notifications.tests.sending import (
    accept,
    changes_of,
    deliver,
    due_now,
    keys_of,
    let_calls_last,
    meanwhile,
    outcomes_of,
    providers,
    reload,
    webhook,
)
from outbox.breaker.machine import Permit
from outbox.models import OutboxEvent

pytestmark = pytest.mark.django_db(transaction=True)


class TestLeases:
    def test_one_that_was_stopped_since_its_claim_begins_nothing(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notification = accept()
        claim = rows.claim

        def claim_long_ago(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(rows, "claim", claim)
            return [
                msgspec.structs.replace(each, until=each.until - 13)
                for each in claim(*arguments, **options)
            ]

        monkeypatch.setattr(rows, "claim", claim_long_ago)
        while deliver():
            pass  # a sender may leave before its result is written

        assert outcomes_of(notification) == ["held", "delivered"]
        assert len(keys_of(provider, notification)) == 1
        assert reload(notification).retry_count == 0

    def test_a_lease_that_ends_is_an_attempt_and_the_late_answer_changes_nothing(
        self, provider: ProviderProcess
    ) -> None:
        notification = accept(priority="low", max_retries=2)
        with transaction.atomic():
            [claim] = rows.claim("low", {"sms": 1}, seconds=0.0)
            rows.assign([(claim, "main")])
        assert times.close_lapsed() == 1
        after = reload(notification)
        assert (after.status, after.retry_count, after.waits_for) == ("pending", 1, "retry")
        assert outcomes_of(notification) == ["unknown"]
        assert changes_of(notification) == ["processing", "pending"]

        due_now()
        deliver("low")
        assert reload(notification).status == "delivered"
        late = metrics.LATE_SENDS._value.get()
        report(claim)

        assert reload(notification).status == "delivered"
        assert outcomes_of(notification) == ["late", "delivered"]
        assert metrics.LATE_SENDS._value.get() == late + 1

    def test_a_late_answer_is_counted_beside_that_of_the_next_attempt(
        self, provider: ProviderProcess
    ) -> None:
        """Both come to be written in one statement."""
        notification = accept(priority="low", max_retries=3)
        claims = []
        for seconds in (0.0, 600.0):
            due_now()
            with transaction.atomic():
                claims += rows.claim("low", {"sms": 1}, seconds=seconds)
                rows.assign([(claims[-1], "main")])
            times.close_lapsed()
        late = metrics.LATE_SENDS._value.get()
        report(*claims)

        assert outcomes_of(notification) == ["late", "failed"]
        assert metrics.LATE_SENDS._value.get() == late + 1

    def test_a_result_that_is_written_twice_is_not_late(self, provider: ProviderProcess) -> None:
        """The first COMMIT was done, its answer lost."""
        notification = accept()
        with transaction.atomic():
            [claim] = rows.claim("high", {"sms": 1}, seconds=600.0)
            rows.assign([(claim, "main")])
        late = metrics.LATE_SENDS._value.get()
        report(claim)
        report(claim)

        assert outcomes_of(notification) == ["failed"]
        assert metrics.LATE_SENDS._value.get() == late
        assert reload(notification).retry_count == 1

    def test_the_last_attempt_that_is_lost_has_failed(self, provider: ProviderProcess) -> None:
        notification = accept(retry_count=4)
        with transaction.atomic():
            rows.claim("high", {"sms": 1}, seconds=0.0)
        times.close_lapsed()

        after = reload(notification)
        assert (after.status, after.error_message) == ("failed", rules.LOST)

    def test_a_lease_that_holds_is_not_closed(self, provider: ProviderProcess) -> None:
        accept()
        with transaction.atomic():
            rows.claim("high", {"sms": 1}, seconds=600.0)
        assert times.close_lapsed() == 0


def report(*claims: rules.Claim) -> None:
    """As the sender of those claims does."""
    answer = ProviderAnswer(verdict="failed", error="The provider answered 500.")
    Rounds("high").write(
        [
            Done(
                Call(claim, "main", Permit("x", 0)),
                rules.result_of(claim, answer, latency_ms=5, probe=False),
            )
            for claim in claims
        ]
    )


class TestCancel:
    def test_fifty_cancelled_while_they_are_claimed(self, provider: ProviderProcess) -> None:
        """Whoever was told 'cancelled' is never begun to be sent after it."""
        made = [accept(str(number)) for number in range(50)]
        provider.rules(AnswerRule(after=0.02))
        cancelled: dict[str, float] = {}
        start = threading.Barrier(2)

        def cancel() -> None:
            start.wait()
            for each in made:
                with transaction.atomic():
                    found = services.cancel([each.id], owner=EVERYBODY)
                if found:
                    cancelled[str(each.id)] = time.monotonic()

        with meanwhile(cancel):
            start.wait()
            sent = deliver()

        arrived = {each.key: each.at for each in provider.arrivals()}
        assert not cancelled.keys() & arrived.keys()
        assert sent + len(cancelled) == 50
        statuses = Counter(Notification.objects.values_list("status", flat=True))
        assert statuses == Counter({"cancelled": len(cancelled), "delivered": sent}) - Counter()

    def test_between_two_attempts(self, provider: ProviderProcess) -> None:
        notification = accept()
        provider.rules(AnswerRule(status=500))
        deliver()
        with transaction.atomic():
            services.cancel([notification.id], owner=EVERYBODY)
        due_now()
        assert deliver() == 0


class TestInFlight:
    def test_one_channel_that_hangs_holds_only_its_own(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        let_calls_last(monkeypatch)
        monkeypatch.setattr(sender, "RUN_SECONDS", 100.0)  # it ends when nothing is left
        provider.rules(AnswerRule(channel="sms", do="hold"))
        before = len(provider.arrivals())
        for number in range(60):
            accept(f"s{number}")
        others = [accept(f"e{number}", channel="email") for number in range(60)]
        hung: list[int] = []

        def of_sms() -> int:
            return sum(each.channel == "sms" for each in provider.arrivals()[before:])

        def others_are_sent() -> bool:
            return {reload(each).status for each in others} == {"delivered"}

        def watch() -> None:
            try:
                assert settles(others_are_sent)
                assert settles(lambda: of_sms() >= 20)
                hung.append(of_sms())
            finally:
                provider.rules()

        given = webhook(provider, in_flight=20, timeout=100.0)
        with providers(main=given), meanwhile(watch):
            assert deliver() == 120
        assert hung == [20]

    def test_no_connection_of_the_database_is_held_meanwhile(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        let_calls_last(monkeypatch)
        monkeypatch.setattr(sender, "RUN_SECONDS", 0.2)
        provider.rules(AnswerRule(do="hold"))
        begun = len(provider.arrivals())
        notification = accept()
        now = (
            backends()
        )  # this one, whose place the watcher's takes, and what other tests have left

        def watch() -> None:
            try:
                assert settles(lambda: len(provider.arrivals()) > begun)
                assert settles(lambda: backends() <= now)
            finally:
                provider.rules()

        connection.close()
        with providers(main=webhook(provider, timeout=100.0)), meanwhile(watch):
            assert deliver() == 1
        assert reload(notification).status == "delivered"


def backends() -> int:
    """Connections to the test's database, the asking one among them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND application_name <> ''"
        )
        return int(cursor.fetchone()[0])


class TestTurns:
    def test_a_second_task_ends_at_once(self, provider: ProviderProcess) -> None:
        turn = Turn("high")
        assert turn.take()
        accept()
        assert deliver() == 0
        turn.leave()
        assert deliver() == 1


class TestTime:
    def test_what_was_scheduled_is_published_with_the_change(
        self, provider: ProviderProcess
    ) -> None:
        notification = accept(
            ready=False, status="scheduled", scheduled_at=timezone.now(), priority="low"
        )
        later = accept(
            ready=False, status="scheduled", scheduled_at=timezone.now() + timedelta(minutes=1)
        )
        assert times.start_scheduled() == 1

        after = reload(notification)
        assert (after.status, after.due_at) == ("pending", None)
        assert changes_of(notification) == ["pending"]
        assert reload(later).status == "scheduled"
        event = OutboxEvent.objects.get(topic="notifications.low")
        assert event.key == str(notification.id)

    def test_a_schedule_that_is_not_published_does_not_begin(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notification = accept(ready=False, status="scheduled", scheduled_at=timezone.now())

        def refuse(*arguments: Any, **options: Any) -> Any:
            raise ValueError("no room")

        monkeypatch.setattr(times, "publishing", refuse)
        with pytest.raises(ValueError, match="no room"):
            times.start_scheduled()
        assert reload(notification).status == "scheduled"

    def test_what_waits_too_long_expires(self, provider: ProviderProcess) -> None:
        past = timezone.now() - timedelta(seconds=1)
        waiting, unready = accept(expires_at=past), accept(expires_at=past, ready=False)
        under_way = accept(expires_at=past, status="processing")
        assert times.expire() == 2

        for notification in (waiting, unready):
            after = reload(notification)
            assert (after.status, after.error_message) == ("failed", "expired")
            assert after.failed_at is not None
            assert changes_of(notification) == ["failed"]
        assert reload(under_way).status == "processing"


class TestWithoutTheDatabase:
    def test_results_are_written_when_it_is_back(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notification = accept()
        settle, failed = rows.settle, list[object]()

        def unwell(results: Any) -> Any:
            if len(failed) < 2:
                failed.append(results)
                raise OperationalError("away")
            return settle(results)

        monkeypatch.setattr(rows, "settle", unwell)
        monkeypatch.setattr(sender, "WRITE_AGAIN_SECONDS", 0.05)
        deliver()
        assert reload(notification).status == "delivered"
        assert Attempt.objects.count() == 1

    def test_results_that_are_left_are_written_by_a_task_without_a_turn(
        self, provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else their leases end, and what was sent is sent again although nobody died."""
        notification = accept()
        settle = rows.settle

        def away(results: Any) -> Any:
            raise OperationalError("away")

        monkeypatch.setattr(rows, "settle", away)
        monkeypatch.setattr(sender, "WRITE_AGAIN_SECONDS", 0.05)
        monkeypatch.setattr(sender, "GIVE_UP_SECONDS", 0.5)
        assert deliver() == 1
        assert reload(notification).status == "processing"

        monkeypatch.setattr(rows, "settle", settle)
        turn = Turn("high")
        assert turn.take()

        def is_written() -> bool:
            assert deliver() == 0
            return reload(notification).status == "delivered"

        assert settles(is_written)
        assert outcomes_of(notification) == ["delivered"]
        turn.leave()
