"""The notifications' pages in the admin: what they tell, what they do, what they cost."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from notifications.models import Attempt, Batch, Notification, StatusChange, Template
from notifications.tests.samples import EMAIL, SMS, accept, accept_batch, failed, template
from outbox.models import OperatorAction
from outbox.tests.admin_pages import COUNT, assert_every_page_is_bounded, fill, log_in, visit

pytestmark = pytest.mark.django_db

PAGES = "/admin/notifications"
NOTIFICATIONS = f"{PAGES}/notification/"


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many of each as a page may touch; three in a thousand have failed."""
    fill(
        monkeypatch,
        "notifications, notification_attempts, notification_batches, notification_templates",
        "INSERT INTO notifications (id, caller, batch_id, recipient, channel, priority, content,"
        " status, expires_at, max_retries, created_at, updated_at)"
        " SELECT md5(i::text)::uuid, 'shop', md5((i / 10)::text)::uuid, 'r' || i, 'push', 'low', 'x',"
        " CASE WHEN i % 333 = 0 THEN 'failed' ELSE 'delivered' END, now(), 2, now(), now()"
        f" FROM generate_series(1, {COUNT}) i",
        "INSERT INTO notification_attempts (notification_id, number, outcome)"
        f" SELECT md5(i::text)::uuid, 1, 'delivered' FROM generate_series(1, {COUNT}) i",
        "INSERT INTO notification_batches (id, caller, total_count, created_at)"
        f" SELECT md5(i::text)::uuid, 'shop', 10, now() FROM generate_series(1, {COUNT}) i",
        "INSERT INTO notification_templates (id, caller, name, channel, body)"
        f" SELECT md5(i::text)::uuid, 'shop', 't' || i, 'sms', 'x' FROM generate_series(1, {COUNT}) i",
    )


@pytest.mark.usefixtures("many")
def test_no_page_touches_more_rows_than_it_may(operator: Client) -> None:
    row = Notification.objects.get(recipient="r77")
    batch = Batch.objects.get(id=str(row.batch_id))
    made = Template.objects.get(name="t77")
    pages = [
        NOTIFICATIONS,
        f"{NOTIFICATIONS}?p=19",
        *(f"{NOTIFICATIONS}?q={text}" for text in (row.pk, row.batch_id, "r77", "nonsense")),
        *(f"{NOTIFICATIONS}?status={status}" for status in ("failed", "pending", "delivered")),
        f"{NOTIFICATIONS}{row.pk}/change/",
        *(f"{PAGES}/batch/{end}" for end in ("", f"?q={batch.pk}", "?q=x", f"{batch.pk}/change/")),
        *(f"{PAGES}/template/{end}" for end in ("", f"?q={made.pk}", f"{made.pk}/change/")),
    ]
    assert_every_page_is_bounded(operator, pages)


def test_a_notification_shows_its_attempts_and_the_way_to_its_events(operator: Client) -> None:
    [accepted] = accept({**EMAIL, "content": "<b>"})
    Attempt.objects.create(
        notification_id=accepted.id, number=1, provider="webhook", outcome="failed",
        status_code=503, error="<i>",
    )  # fmt: skip
    text = visit(operator, f"{NOTIFICATIONS}{accepted.id}/change/").text
    for part in ("&lt;b&gt;", "&lt;i&gt;", "webhook", "503", EMAIL["recipient"], "c-1"):
        assert part in text, part
    link = f"/admin/outbox/outboxevent/?q={accepted.id}"
    assert f'href="{link}"' in text
    assert "NOTIFICATION_PENDING" in visit(operator, link).text


def act(client: Client, page: str, action: str, *ids: Any, **more: str) -> Any:
    data = {"action": action, "_selected_action": [str(id_) for id_ in ids], **more}
    return client.post(f"{PAGES}/{page}/", data, follow=True)


def kept() -> list[tuple[str, str, str, str, int]]:
    """What the log of operators has, all of it over."""
    rows = OperatorAction.objects.order_by("id")
    assert all(row.ended_at for row in rows)
    return [(row.by, row.what, row.subject, row.why, row.done) for row in rows]


def statuses() -> list[str]:
    return list(Notification.objects.order_by("id").values_list("status", flat=True))


@pytest.mark.parametrize(
    ("action", "after"),
    [("cancel", ["cancelled", "failed"]), ("retry", ["pending", "pending"]),
     ("discard", ["pending", "failed"])],
)  # fmt: skip
def test_an_action_asks_first(operator: Client, action: str, after: list[str]) -> None:
    ids = [*(each.id for each in accept(SMS)), *failed()]
    before = statuses()
    page = act(operator, "notification", action, *ids)
    assert (page.status_code, statuses()) == (200, before)
    chosen = ids[0] if action == "cancel" else ids[1]
    assert f'name="_selected_action" value="{chosen}"' in page.content.decode()
    assert page.content.decode().count('name="_selected_action"') == 1
    for why in ({}, {"note": " "}):
        asked = act(operator, "notification", action, *ids, confirmed="Yes", **why)
        assert 'name="note" size="60" maxlength="500" required' in asked.content.decode()
        assert (statuses(), kept()) == (before, [])
    done = act(operator, "notification", action, *ids, confirmed="Yes", note="a reason")
    assert "1 " in done.content.decode()
    assert statuses() == after
    assert Notification.objects.get(id=ids[1]).discarded_at is None or action == "discard"
    assert StatusChange.objects.count() == (action != "discard")
    assert kept() == [("operator", action, f"notification {chosen}", "a reason", 1)]


def test_a_batch_is_cancelled_from_its_page(operator: Client) -> None:
    batch = accept_batch(SMS, EMAIL)
    assert act(operator, "batch", "cancel", batch.id).status_code == 200
    assert statuses() == ["pending", "pending"]
    act(operator, "batch", "cancel", batch.id, confirmed="Yes")
    assert (statuses(), kept()) == (["pending", "pending"], [])
    act(operator, "batch", "cancel", batch.id, confirmed="Yes", note="a mistake")
    assert kept() == [("operator", "cancel", f"batch {batch.id}", "a mistake", 2)]
    assert statuses() == ["cancelled", "cancelled"]


def test_who_may_only_look_may_do_nothing(permissions: None) -> None:
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    [accepted] = accept(SMS)
    template("x")
    assert client.get(NOTIFICATIONS).status_code == 200
    act(client, "notification", "cancel", accepted.id, confirmed="Yes", note="a reason")
    assert statuses() == ["pending"]
