"""Failed notifications as dead letters: the command shows them and acts on them."""

from __future__ import annotations

import json
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import call_command

from notifications.letters import FAILED_NOTIFICATIONS
from notifications.models import Notification, Status, StatusChange
from notifications.tests.samples import EMAIL, SMS, accept, failed, set_status
from outbox.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("dead_letters", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_they_are_listed_beside_the_others() -> None:
    sms, email = failed(SMS, {**EMAIL, "priority": "high"})
    accept(SMS)
    [first, second] = run("list").splitlines()
    assert first.startswith(f"{sms}  dead  notifications  notifications.normal  key={sms}")
    assert first.endswith("answered 400")
    assert second.startswith(f"{email}  dead  notifications  notifications.high")
    for narrowed in (["--topic", "notifications.high"], ["--key", email], [email]):
        [line] = run("list", *narrowed).splitlines()
        assert line == second, narrowed
    for empty in (["--handler", "record_sales"], ["--state", "parked"], ["--error", "x"],
                  ["--key", "x"], ["--since", "2099-01-01"], ["17"]):  # fmt: skip
        assert run("list", *empty) == "", empty
    assert len(run("list", "--handler", "notifications", "--error", "400").splitlines()) == 2
    assert run("list", "--limit", "1").splitlines()[1] == "Left out by --limit 1: 1."


def test_they_tell_neither_recipient_nor_text() -> None:
    [id_] = failed()
    output = run("inspect", id_)
    assert json.loads(output)["id"] == id_
    assert json.loads(output)["correlation_id"] == "c-1"
    assert SMS["recipient"] not in output
    assert SMS["content"] not in output


def test_a_replay_sends_again() -> None:
    ids = failed(SMS, EMAIL)
    assert run("replay", "--dry-run").splitlines()[-1] == "Would replay 2 notifications."
    assert not StatusChange.objects.exists()
    assert run("replay", ids[0]).splitlines()[-1] == "1 replayed, 0 skipped: notifications."
    assert [row.status for row in Notification.objects.order_by("id")] == ["pending", "failed"]
    run("replay", "--handler", "notifications", "--rate", "1000")
    assert [row.status for row in Notification.objects.order_by("id")] == ["pending", "pending"]
    assert [row.round for row in Notification.objects.order_by("id")] == [1, 1]


def test_a_discarded_one_is_listed_no_more() -> None:
    [id_] = failed()
    assert run("discard", id_).splitlines()[-1] == "1 discarded, 0 skipped: notifications."
    assert run("list") == ""
    assert Notification.objects.get(id=UUID(id_)).status == "failed"


def test_one_that_has_moved_on_is_skipped() -> None:
    [id_] = failed()
    found = Notification.objects.filter(id=id_)
    set_status([id_], Status.DELIVERED)
    assert FAILED_NOTIFICATIONS.replay([UUID(id_)], by="test") == []
    assert FAILED_NOTIFICATIONS.discard([UUID(id_)], by="test") == []
    assert found.get().status == "delivered"


def test_letters_of_handlers_are_left_alone() -> None:
    """A UUID is an app's, a number a handler's."""
    letter = DeadLetter.objects.create(
        handler="record_sales", event_id=UUID(int=1), topic="order-events", key="k", state=2
    )
    [id_] = failed()
    run("discard", id_)
    assert DeadLetter.objects.get(id=letter.id).state == letter.state
