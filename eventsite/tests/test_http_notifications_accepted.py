"""What the API of notifications accepts and answers, over real HTTP."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID

import pytest
from django.core.management import call_command

from devtools.testing.web import JSON, Answer, Web, assert_error
from eventsite.tests.notification_requests import (
    API,
    BATCH,
    FIELDS,
    NO_OBJECTS,
    NOTIFICATIONS,
    TEMPLATE,
    TEMPLATES,
    fields_of,
    posted,
)
from notifications.api.reading import read_notification
from notifications.models import Batch, Notification, Status, StatusChange
from notifications.tests.samples import EMAIL, NEXT_MONTH, PUSH, SMS, asking, set_status
from outbox.models import OutboxEvent
from restapi.tests.sessions import other_session


def test_what_is_told_of_a_new_one(web: Web) -> None:
    for priority, attempts in (("high", 5), ("normal", 3), ("low", 2)):
        told = posted(web, NOTIFICATIONS, SMS | {"priority": priority})
        assert tuple(told) == FIELDS
        assert (told["status"], told["retry_count"]) == ("pending", 0)
        assert (told["priority"], told["max_retries"]) == (priority, attempts)
        assert web.get(f"{NOTIFICATIONS}/{told['id']}").json == told
    later = posted(web, NOTIFICATIONS, SMS | {"scheduled_at": NEXT_MONTH})
    assert (later["status"], later["scheduled_at"]) == ("scheduled", NEXT_MONTH)
    assert (later["priority"], later["max_retries"]) == ("normal", 3)


def test_a_batch_of_a_thousand(web: Web) -> None:
    items = [
        EMAIL | {"content": f"é{number}", "idempotency_key": f"k{number}"} for number in range(1000)
    ]
    told = posted(web, BATCH, {"notifications": items})
    assert told["batch"]["total_count"] == told["batch"]["pending_count"] == 1000
    assert [each["content"] for each in told["notifications"]] == [
        each["content"] for each in items
    ]
    assert {each["batch_id"] for each in told["notifications"]} == {told["batch"]["id"]}
    again = posted(web, BATCH, {"notifications": items})
    assert [each["id"] for each in again["notifications"]] == [
        each["id"] for each in told["notifications"]
    ]
    assert again["batch"]["total_count"] == 0
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1000
    assert len(web.get(NOTIFICATIONS).json["data"]) == 20
    assert len(web.get(f"{NOTIFICATIONS}?page_size=100").json["data"]) == 100
    answer = web.post(BATCH, {"notifications": [SMS, items[7] | {"content": "x"}]})
    [detail] = assert_error(answer, 422)["details"]
    assert detail["field"] == "notifications.1.idempotency_key"


def test_a_key_that_runs_elsewhere(web: Web) -> None:
    keyed = SMS | {"idempotency_key": "k"}
    key = read_notification(keyed, asking("anonymous")).key
    assert key is not None
    with other_session() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", (key.lock,))
        for path, body in ((NOTIFICATIONS, keyed), (BATCH, {"notifications": [SMS, keyed]})):
            answer = web.post(path, body)
            assert_error(answer, 409)
            assert answer.header("retry-after") == "1"
    assert not Notification.objects.exists()
    assert not Batch.objects.exists()


@pytest.mark.parametrize("header", [False, True], ids=["field", "header"])
def test_a_crowd_with_one_key_is_served_once(web: Web, header: bool) -> None:
    body = SMS if header else SMS | {"idempotency_key": "k"}
    headers = {"Idempotency-Key": "k"} if header else {}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: web.post(NOTIFICATIONS, body, headers), range(100)))
    [stored] = Notification.objects.all()
    assert OutboxEvent.objects.count() == 1
    counts = Counter(answer.status for answer in answers)
    assert counts.keys() <= {201, 409}
    if not header:
        assert counts[201] == 1
        for answer in answers:
            told = answer.json
            assert told.get("id", str(stored.id)) == str(stored.id)
            assert ("id" in told) != bool(answer.header("retry-after"))


def test_an_equal_one_is_told_beside_the_error(web: Web) -> None:
    keyed = SMS | {"idempotency_key": "k"}
    first = posted(web, NOTIFICATIONS, keyed)
    answer = web.post(NOTIFICATIONS, keyed | {"priority": None})
    assert_error(answer, 409, *first)
    assert {name: answer.json[name] for name in first} == first
    [detail] = assert_error(web.post(NOTIFICATIONS, keyed | {"content": "x"}), 422)["details"]
    assert detail["field"] == "idempotency_key"


def test_the_header_is_looked_at_first(web: Web) -> None:
    keyed = SMS | {"idempotency_key": "k"}
    first = web.post(NOTIFICATIONS, keyed, {"Idempotency-Key": "h"})
    again = web.post(NOTIFICATIONS, keyed, {"Idempotency-Key": "h"})
    assert (again.status, again.body) == (201, first.body)
    assert again.header("idempotent-replayed") == "true"
    assert web.post(NOTIFICATIONS, keyed, {"Idempotency-Key": "other"}).status == 409
    wrong = web.post(NOTIFICATIONS, keyed | {"channel": "fax"}, {"Idempotency-Key": "h"})
    assert_error(wrong, 422)
    assert Notification.objects.count() == 1


def test_cancel_and_retry(web: Web) -> None:
    id_ = posted(web, NOTIFICATIONS, SMS)["id"]

    def asked(action: str, method: str, status: Status) -> Answer:
        set_status([id_], status)
        return web.request(method, f"{NOTIFICATIONS}/{id_}/{action}")

    for status in (Status.PROCESSING, Status.DELIVERED, Status.FAILED, Status.CANCELLED):
        answer = asked("cancel", "PATCH", status)
        assert_error(answer, 409, "status")
        assert answer.json["status"] == status
    for status in (Status.PENDING, Status.SCHEDULED):
        answer = asked("cancel", "PATCH", status)
        assert (answer.status, answer.json) == (200, {"status": "cancelled"})
    for status in (Status.PENDING, Status.SCHEDULED, Status.PROCESSING, Status.CANCELLED):
        answer = asked("retry", "POST", status)
        assert_error(answer, 409, "status")
        assert answer.json["status"] == status
    answer = asked("retry", "POST", Status.FAILED)
    assert (answer.status, answer.json) == (200, {"status": "pending"})
    assert_error(web.request("PATCH", f"{NOTIFICATIONS}/{id_}/cancel", b"[]", JSON), 400)


def test_what_was_erased_is_not_sent_again_and_says_so(web: Web) -> None:
    id_ = posted(web, NOTIFICATIONS, SMS)["id"]
    set_status([id_], Status.FAILED)
    call_command("erase_recipient", SMS["recipient"])
    answer = web.request("POST", f"{NOTIFICATIONS}/{id_}/retry")
    error = assert_error(answer, 409, "status")
    assert (error["status"], "was erased" in error["error"]) == ("failed", True)


def test_a_batch_and_its_end(web: Web) -> None:
    told = posted(web, BATCH, {"notifications": [SMS, EMAIL, PUSH]})
    batch = told["batch"]
    set_status([told["notifications"][0]["id"]], Status.DELIVERED)
    live = web.get(f"{API}/batches/{batch['id']}").json
    assert live == batch | {"pending_count": 2, "delivered_count": 1}
    answer = web.request("PATCH", f"{API}/batches/{batch['id']}/cancel")
    assert answer.json == {
        "cancelled": 2,
        "batch": live | {"pending_count": 0, "cancelled_count": 2},
    }
    again = web.request("PATCH", f"{API}/batches/{batch['id']}/cancel")
    assert (again.status, again.json["cancelled"]) == (200, 0)


def test_templates_live_and_die(web: Web) -> None:
    made = posted(web, TEMPLATES, TEMPLATE)
    path = f"{TEMPLATES}/{made['id']}"
    assert {name: made[name] for name in TEMPLATE} == TEMPLATE
    assert_error(web.post(TEMPLATES, TEMPLATE), 409)
    assert web.get(TEMPLATES).json == {"data": [made]}
    text = web.post(f"{path}/preview", {"variables": {"Name": "{{.Name}}"}}).json
    assert text == {"content": "Hi {{.Name}}"}
    for variables in ({}, {"Name": 1}, {"Name": "x" * 158}, *NO_OBJECTS[1:]):
        assert fields_of(web.post(f"{path}/preview", {"variables": variables})) == ["variables"]
    id_ = posted(
        web, NOTIFICATIONS, SMS | {"template_id": made["id"], "template_variables": {"Name": "Ann"}}
    )["id"]
    change = json.dumps({"name": "hello", "body": "Hello {{.Name}}"}).encode()
    changed = web.request("PUT", path, change, JSON).json
    assert (changed["name"], changed["body"], changed["channel"]) == (
        "hello",
        "Hello {{.Name}}",
        "sms",
    )
    assert changed["updated_at"] >= made["updated_at"]
    other = json.dumps(TEMPLATE | {"channel": "push"}).encode()
    assert fields_of(web.request("PUT", path, other, JSON)) == ["channel"]
    posted(web, TEMPLATES, TEMPLATE)
    assert_error(web.request("PUT", path, json.dumps(TEMPLATE).encode(), JSON), 409)
    keyed = JSON | {"Idempotency-Key": "k"}
    first = web.request("PUT", path, change, keyed)
    assert first.status == 200
    gone = web.request("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    again = web.request("PUT", path, change, keyed)
    assert (again.status, again.body) == (200, first.body)
    assert_error(web.request("PUT", path, change, JSON), 404)
    assert_error(web.request("DELETE", path), 404)
    kept = web.get(f"{NOTIFICATIONS}/{id_}").json
    assert (kept["content"], kept["template_id"]) == ("Hi Ann", made["id"])


def test_lists_and_figures(web: Web) -> None:
    ids = [posted(web, NOTIFICATIONS, body)["id"] for body in (SMS, EMAIL, PUSH)]
    page = web.get(f"{NOTIFICATIONS}?page_size=2").json
    assert [each["id"] for each in page["data"]] == [ids[2], ids[1]]
    last = web.get(f"{NOTIFICATIONS}?page_size=2&cursor={page['next_cursor']}").json
    assert ([each["id"] for each in last["data"]], last["next_cursor"]) == ([ids[0]], None)
    found = web.get(f"{NOTIFICATIONS}?recipient=%2B905000000000&status=pending&channel=sms").json
    assert [each["id"] for each in found["data"]] == [ids[0]]
    assert web.get(f"{NOTIFICATIONS}/{ids[0]}/attempts").json == {"data": []}
    empty = {"sent": 0, "failed": 0, "avg_latency_ms": 0, "success_rate": 0}
    assert web.get(f"{API}/metrics").json == {
        "channels": dict.fromkeys(("sms", "email", "push"), empty)
    }
    for status, latency in (
        ("delivered", 10),
        ("delivered", 20),
        ("delivered", 40),
        ("failed", None),
    ):
        StatusChange.objects.create(
            notification_id=UUID(int=1), caller="shop", channel="email", previous="processing",
            status=status, latency_ms=latency,
        )  # fmt: skip
    assert web.get(f"{API}/metrics").json["channels"] == {
        "sms": empty,
        "email": {
            "sent": 3,
            "failed": 1,
            "avg_latency_ms": Decimal("23.33"),
            "success_rate": Decimal("75.0"),
        },
        "push": empty,
    }
