"""The handlers of the three topics: what they make ready, what they pass by, what is a dead letter."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from notifications.delivery import times, turns
from notifications.delivery.channels import pause_channel
from notifications.delivery.ready import UnknownNotification, decode_known, ready_of
from notifications.events import HighPending
from notifications.models import Notification
from notifications.tests.sending import accept, fresh_redis, reload
from outbox import redis_client
from outbox.envelope import EventEnvelope

pytestmark = pytest.mark.django_db(transaction=True)


def envelope(notification_id: str) -> EventEnvelope:
    event = HighPending(event_id=str(uuid4()), notification_id=notification_id, channel="sms")
    return EventEnvelope(
        event_id=uuid4(),
        type=event.type,
        topic=event.topic.name,
        key=event.key,
        source=event.source,
        time="2026-11-30T12:00:00.000Z",
        payload=event.to_json(),
    )


def make_ready(*notifications: Notification) -> None:
    with transaction.atomic():
        ready_of("high")([envelope(str(each.id)) for each in notifications])


def test_what_is_pending_becomes_ready_once() -> None:
    fresh = accept(ready=False)
    make_ready(fresh, fresh)
    first = reload(fresh)
    assert first.ready_at is not None
    assert first.due_at is not None

    Notification.objects.filter(id=fresh.id).update(due_at=None)  # it has been tried, and waits
    make_ready(fresh)
    assert (reload(fresh).ready_at, reload(fresh).due_at) == (first.ready_at, None)


@pytest.mark.parametrize("status", ["scheduled", "cancelled", "delivered", "failed", "processing"])
def test_everything_else_is_passed_by(status: str) -> None:
    other = accept(ready=False, status=status)
    make_ready(other)
    assert reload(other).ready_at is None


def test_an_unknown_id_is_refused_with_the_rest_of_its_transaction() -> None:
    fresh = accept(ready=False)
    with pytest.raises(UnknownNotification), transaction.atomic():
        ready_of("high")([envelope(str(fresh.id)), envelope(str(uuid4()))])
    assert reload(fresh).ready_at is None


def test_what_another_producer_invents_is_its_fault() -> None:
    """The decoder refuses it too, so that it is parked as not ours, and the circuit counts nothing."""
    known = accept(ready=False)
    assert decode_known(envelope(str(known.id)).payload) == str(known.id)
    with pytest.raises(UnknownNotification):
        decode_known(envelope(str(uuid4())).payload)


class TestTheNudge:
    @pytest.fixture(autouse=True)
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        fresh_redis()
        # Nothing ends by time, however slow the test is.
        monkeypatch.setattr(turns, "TURN_MS", 60_000)
        monkeypatch.setattr(turns, "NUDGE_MS", 60_000)
        names: list[str] = []
        monkeypatch.setattr(current_app, "send_task", lambda name, **_: names.append(name))
        return names

    def test_a_delivery_is_asked_for_once_and_after_the_commit(self, sent: list[str]) -> None:
        fresh, more = accept(ready=False), accept(ready=False)
        with transaction.atomic():
            ready_of("high")([envelope(str(fresh.id))])
            assert sent == []
        make_ready(more)
        assert sent == ["notifications.deliver_high"]

    def test_a_delivery_is_asked_for_when_a_retry_is_due(self, sent: list[str]) -> None:
        accept(priority="low", due_at=timezone.now() + timedelta(hours=1))
        times.keep_times()
        assert sent == []

        accept(priority="low")
        accept(priority="high")
        times.keep_times()
        assert sorted(sent) == ["notifications.deliver_high", "notifications.deliver_low"]

    def test_nobody_asks_for_a_paused_channel(self, sent: list[str]) -> None:
        pause_channel("sms", reason="a test", by="me")
        accept()
        times.keep_times()
        assert sent == []

    def test_who_lost_redis_a_moment_ago_asks_again(self, sent: list[str]) -> None:
        accept()
        redis_client.note_lost(redis.ConnectionError("gone"))
        times.keep_times()
        assert sent == ["notifications.deliver_high"]

    def test_beats_of_older_releases_know_the_parts(self, sent: list[str]) -> None:
        accept()
        for name in ("start_scheduled", "expire", "close_lapsed"):
            assert current_app.tasks[f"notifications.{name}"].apply().get() == 0
        assert sent == ["notifications.deliver_high"]

    def test_not_for_nothing(self, sent: list[str]) -> None:
        make_ready(accept(ready=False, status="cancelled"))
        assert sent == []

    def test_not_while_somebody_is_at_it(self, sent: list[str]) -> None:
        turn = turns.Turn("high")
        assert turn.take()
        make_ready(accept(ready=False))
        assert sent == []

        turn.leave()
        make_ready(accept(ready=False))
        assert sent == ["notifications.deliver_high"]

    def test_a_turn_that_another_has_is_not_left(self, sent: list[str]) -> None:
        """A sender that was stopped for longer than its turn comes back."""
        late, other = turns.Turn("high"), turns.Turn("high")
        assert late.take()
        fresh_redis()
        assert other.take()
        late.leave()
        with redis.Redis.from_url(settings.REDIS_URL) as server:
            assert server.exists("notifications:{high}:turn:0")
        assert not turns.Turn("high").take()
