"""Cancelling, sending again, discarding: each under the row's lock, and told with the change itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction

from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from notifications import services
from notifications.api.views import CancelNotificationView, RetryView
from notifications.models import Notification, Status, StatusChange
from notifications.queries import Owner
from notifications.status_log import CHANGED, Changed, recording
from notifications.tests.samples import (
    EMAIL,
    EVERYBODY,
    NEXT_MONTH,
    SMS,
    accept,
    accept_batch,
    failed,
    set_status,
    somebody_waits,
)
from outbox.database.round_trips import send
from outbox.models import OutboxEvent
from restapi.tests.sessions import other_session

pytestmark = pytest.mark.django_db(transaction=True)
SHOP, BANK = Owner("shop", sees_all=False), Owner("bank", sees_all=False)

CLAIM = """
    UPDATE notifications SET status = 'processing', attempt = attempt + 1,
        due_at = clock_timestamp() + interval '30 s'
    WHERE id = %s AND status = 'pending'
"""


def change(act: Callable[..., Any], ids: list[str], owner: Owner = SHOP) -> int:
    with transaction.atomic():
        return len(act([UUID(id_) for id_ in ids], owner=owner))


def statuses() -> list[str]:
    return list(Notification.objects.order_by("id").values_list("status", flat=True))


def test_what_waits_is_cancelled_and_told() -> None:
    ids = [each.id for each in accept(SMS, {**EMAIL, "scheduled_at": NEXT_MONTH})]
    assert change(services.cancel, ids) == 2
    assert statuses() == ["cancelled", "cancelled"]
    log = list(
        StatusChange.objects.order_by("id").values_list("previous", "status", "channel", "seq")
    )
    assert log == [("pending", "cancelled", "sms", None), ("scheduled", "cancelled", "email", None)]
    events = OutboxEvent.objects.filter(topic="notification-status").order_by("id")
    for event, id_ in zip(events, ids, strict=True):
        row = Notification.objects.get(id=id_)
        assert event.key == id_
        value = json.loads(event.payload)
        assert value.pop("timestamp")[:19] == row.updated_at.isoformat()[:19]
        assert UUID(value.pop("event_id")) == event.event_id
        assert value == {"notification_id": id_, "batch_id": None, "status": "cancelled"}
        assert event.correlation_id == "c-1"
    assert change(services.cancel, ids) == 0


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.DELIVERED, Status.FAILED])
def test_what_does_not_wait_is_left_alone(status: Status) -> None:
    [accepted] = accept(SMS)
    set_status([accepted.id], status)
    assert change(services.cancel, [accepted.id]) == 0
    assert statuses() == [status]
    assert not StatusChange.objects.exists()


def test_nobody_changes_what_is_anothers() -> None:
    [waiting] = accept(SMS)
    [dead] = failed()
    for act in (services.cancel, services.retry, services.discard):
        assert change(act, [waiting.id, dead], BANK) == 0
    assert change(services.cancel, [waiting.id], EVERYBODY) == 1


def test_a_cancel_that_waits_for_a_claim_finds_it_under_way() -> None:
    """It looks at the status under the lock. Who looked before it would cancel what is being sent."""
    [accepted] = accept(SMS)
    with other_session() as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute(CLAIM, (accepted.id,))
            cancelling = pool.submit(_closing(change), services.cancel, [accepted.id])
            assert settles(somebody_waits)
        assert cancelling.result(timeout=PATIENCE) == 0
    assert statuses() == ["processing"]


def test_a_claim_that_waits_for_a_cancel_finds_nothing() -> None:
    [accepted] = accept(SMS)
    with other_session() as other, ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert change(services.cancel, [accepted.id]) == 1
            claiming = pool.submit(lambda: other.execute(CLAIM, (accepted.id,)).rowcount)
            assert settles(somebody_waits)
        assert claiming.result(timeout=PATIENCE) == 0
    assert statuses() == ["cancelled"]


def test_a_change_that_is_rolled_back_is_not_told() -> None:
    [accepted] = accept(SMS)
    with transaction.atomic():
        assert services.cancel([UUID(accepted.id)], owner=SHOP)
        transaction.set_rollback(True)
    assert (statuses(), StatusChange.objects.count()) == (["pending"], 0)
    assert not OutboxEvent.objects.filter(topic="notification-status").exists()


def _closing(act: Callable[..., int]) -> Callable[..., int]:
    """The same in a thread, whose connection is closed behind it."""

    def closed(*arguments: Any) -> int:
        with closing(connection):
            return act(*arguments)

    return closed


def test_a_failed_one_is_sent_again_with_fresh_attempts() -> None:
    [id_] = failed()
    before = Notification.objects.get(id=id_)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE notifications SET expires_at = clock_timestamp() - interval '1 h'")
    assert change(services.retry, [id_]) == 1
    row = Notification.objects.get(id=id_)
    assert (row.status, row.retry_count, row.round) == ("pending", 0, 1)
    assert (row.failed_at, row.error_message) == (None, None)
    assert row.due_at is not None
    assert row.ready_at is not None
    assert row.expires_at > before.expires_at
    change_ = StatusChange.objects.get()
    assert (change_.previous, change_.status) == ("failed", "pending")
    assert change(services.retry, [id_]) == 0


def test_a_discarded_one_stays_failed() -> None:
    [id_] = failed()
    assert change(services.discard, [id_]) == 1
    assert change(services.discard, [id_]) == 0
    assert statuses() == ["failed"]
    assert not StatusChange.objects.exists()
    assert change(services.retry, [id_]) == 1
    assert Notification.objects.get().discarded_at is None


def test_a_batch_is_cancelled_as_far_as_it_can_be() -> None:
    accepted = accept_batch(*[SMS] * 4)
    ids = [each.id for each in accepted.notifications]
    set_status(ids[:1], Status.DELIVERED)
    set_status(ids[1:2], Status.PROCESSING)
    accept(SMS)
    with transaction.atomic():
        assert not services.cancel_batch(UUID(accepted.id), owner=BANK)
        assert len(services.cancel_batch(UUID(accepted.id), owner=SHOP)) == 2
    assert statuses() == ["delivered", "processing", "cancelled", "cancelled", "pending"]


def test_what_is_not_open_cannot_be_claimed() -> None:
    """The table refuses a due time that would have a cancelled or finished one sent."""
    [accepted] = accept(SMS)
    change(services.cancel, [accepted.id])
    with pytest.raises(IntegrityError, match="notifications_due_while_open"):
        Notification.objects.filter(id=accepted.id).update(due_at="2026-01-01T00:00:00Z")


def test_a_delivery_tells_how_long_it_took() -> None:
    """From accepted, or from its schedule where that is later, until sent."""
    ids = [each.id for each in accept(SMS, {**SMS, "scheduled_at": NEXT_MONTH})]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH before AS (SELECT id, status FROM notifications ORDER BY id FOR UPDATE)
            UPDATE notifications AS changed
            SET status = 'delivered', sent_at =
                coalesce(scheduled_at, created_at) + interval '1.5 s'
            FROM before WHERE changed.id = before.id RETURNING {CHANGED}
            """
        )
        changes = sorted(
            (Changed(*row) for row in cursor.fetchall()), key=lambda each: each.notification_id
        )
        send(recording(changes))
    logged = StatusChange.objects.order_by("id").values_list("notification_id", "latency_ms")
    assert [(str(id_), ms) for id_, ms in logged] == [(id_, 1500) for id_ in ids]


@pytest.mark.parametrize(
    ("view", "act", "seen", "later", "end"),
    [
        (CancelNotificationView, "cancel", Status.PROCESSING, Status.PENDING, "cancelled"),
        (RetryView, "retry", Status.PROCESSING, Status.FAILED, "pending"),
    ],
)
def test_what_changes_between_two_looks_is_not_refused_for_what_it_is_now(
    view: Any, act: str, seen: Status, later: Status, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the answer would be that what is pending cannot be cancelled."""
    [accepted] = accept(SMS)
    set_status([accepted.id], seen)
    real = getattr(services, act)

    def and_then_it_ends(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(view, "change", staticmethod(real))
        found = real(*given, **named)
        with other_session() as other:
            other.execute(
                "UPDATE notifications SET status = %s WHERE id = %s", (later.value, accepted.id)
            )
        return found

    monkeypatch.setattr(view, "change", staticmethod(and_then_it_ends))
    with transaction.atomic():
        change = view()._write([UUID(accepted.id)], whose=SHOP)
    assert (change.results, statuses()) == ([end], [end])
