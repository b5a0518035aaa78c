"""The notifications API over real HTTP: what it refuses, whose things are whose, keys under a crowd."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from apikeys import services
from devtools.testing.web import JSON, Answer, Web, assert_error, web_process
from notifications.api.reading import read_notification
from notifications.models import Batch, Notification, Status, StatusChange
from notifications.tests.samples import EMAIL, NEXT_MONTH, PUSH, SMS, asking, failed, set_status
from notifications.tests.test_reading import WRONG
from notifications.tests.test_recipients import NO_RECIPIENTS
from outbox.models import OutboxEvent
from restapi.tests.sessions import other_session
from restapi.tests.tables import row_counts

API = "/api/v1"
NOTIFICATIONS = f"{API}/notifications"
BATCH = f"{NOTIFICATIONS}/batch"
TEMPLATES = f"{API}/templates"
NOBODY = "01890000-0000-7000-8000-00000000dead"
TEMPLATE = {"name": "greeting", "channel": "sms", "body": "Hi {{.Name}}"}
TIMES = ("scheduled_at", "expires_at")
# Of a notification, in the contract's order.
FIELDS = (
    "id", "batch_id", "idempotency_key", "recipient", "channel", "content", "priority", "status",
    "provider_message_id", "scheduled_at", "expires_at", "sent_at", "failed_at", "retry_count",
    "max_retries", "error_message", "template_id", "template_variables", "rendered", "created_at",
    "updated_at",
)  # fmt: skip
NO_OBJECTS: tuple[Any, ...] = (None, 1, [], "x")


def posted(web: Web, path: str, value: Any) -> Any:
    answer = web.post(path, value)
    assert answer.status == 201, answer.body
    return answer.json


def fields_of(answer: Answer) -> list[str]:
    return [detail["field"] for detail in assert_error(answer, 400)["details"]]


def refused_by_length(web: Web, path: str, length: int) -> int:
    """The status of the answer to a head alone: who sends its body too may find the connection cut."""
    with web.socket() as raw:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(raw)
        answer.begin()
        return answer.status


@pytest.mark.usefixtures("nothing_stored")
class TestRefused:
    """Each with a 400 that names the field, and nothing stored."""

    def test_every_field_wrong(self, refusing_web: Web) -> None:
        for change, field in WRONG:
            if field not in TIMES:
                body = SMS | change
                assert fields_of(refusing_web.post(NOTIFICATIONS, body)) == [field], body

    def test_fields_that_are_missing(self, refusing_web: Web) -> None:
        for field in SMS:
            body = {name: SMS[name] for name in SMS if name != field}
            assert fields_of(refusing_web.post(NOTIFICATIONS, body)) == [field]

    def test_recipients(self, refusing_web: Web) -> None:
        """What is no recipient of its channel; and what is one, of the other channels."""
        others = [("sms", EMAIL), ("sms", PUSH), ("email", SMS), ("email", PUSH)]
        for channel, recipient in (
            *NO_RECIPIENTS,
            *((channel, body["recipient"]) for channel, body in others),
        ):
            body = SMS | {"channel": channel, "recipient": recipient}
            assert fields_of(refusing_web.post(NOTIFICATIONS, body)) == ["recipient"], body

    def test_times(self, refusing_web: Web) -> None:
        year = datetime.now(UTC).year + 1
        for field in TIMES:
            for value in (
                "2020-01-01T00:00:00Z",
                f"{year}-01-01T00:00:00",
                f"{year}-01-01T00:00:60Z",
                f"{year}-01-01",
                "9999-12-31T23:59:59Z",
                f"{year + 2}-01-01T00:00:00Z",
                "x",
                1,
            ):
                assert fields_of(refusing_web.post(NOTIFICATIONS, SMS | {field: value})) == [field]

    def test_bodies(self, refusing_web: Web) -> None:
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 5000):
            for path in (NOTIFICATIONS, BATCH, TEMPLATES):
                assert_error(refusing_web.request("POST", path, body, JSON), 400)
        for path in (NOTIFICATIONS, BATCH, TEMPLATES):
            assert_error(refusing_web.request("POST", path, b"{}", {"Content-Type": "x/y"}), 415)

    def test_batches(self, refusing_web: Web) -> None:
        nothing: tuple[Any, ...] = (None, {}, "x", [], [SMS] * 1001)
        body: Any
        for value in nothing:
            body = {"notifications": value}
            assert fields_of(refusing_web.post(BATCH, body)) == ["notifications"]
        one_bad = [SMS] * 999 + [SMS | {"recipient": "x"}]
        assert fields_of(refusing_web.post(BATCH, {"notifications": one_bad})) == [
            "notifications.999.recipient"
        ]
        for item in NO_OBJECTS:
            body = {"notifications": [SMS, item]}
            assert fields_of(refusing_web.post(BATCH, body)) == ["notifications.1"]
        keyed = SMS | {"idempotency_key": "k"}
        answer = refusing_web.post(BATCH, {"notifications": [keyed, SMS, keyed]})
        assert fields_of(answer) == ["notifications.2.idempotency_key"]

    def test_a_batch_of_nine_mebibytes(self, refusing_web: Web) -> None:
        """It is refused by its length; eight are read, though what is in them is refused. Other paths
        take one."""
        for mebibytes, path in ((9, BATCH), (2, NOTIFICATIONS)):
            assert refused_by_length(refusing_web, path, mebibytes * 2**20) == 413
        items = [EMAIL | {"content": "x" * 2**20}] * 7
        body = json.dumps({"notifications": items}).encode()
        assert_error(refusing_web.request("POST", BATCH, body, JSON), 400)

    def test_templates(self, refusing_web: Web) -> None:
        for field, value in (
            ("body", "{{.Name"),
            ("body", "{{{.Name}}}"),
            ("body", "{{.A{{.B}}}}"),
            ("body", "{{upper .Name}}"),
            ("body", "x" * 100_000),
            ("body", ""),
            ("body", 1),
            ("body", None),
            ("name", ""),
            ("name", "x" * 256),
            ("name", ["x"]),
            ("channel", "fax"),
            ("channel", None),
        ):
            assert fields_of(refusing_web.post(TEMPLATES, TEMPLATE | {field: value})) == [field]
        for field in TEMPLATE:
            body = {name: TEMPLATE[name] for name in TEMPLATE if name != field}
            assert fields_of(refusing_web.post(TEMPLATES, body)) == [field]

    def test_what_is_not_there(self, refusing_web: Web) -> None:
        for id_ in (NOBODY, "x", "null", "1", "%00", f"{NOBODY}x"):
            for method, path in (
                ("GET", f"{NOTIFICATIONS}/{id_}"),
                ("GET", f"{NOTIFICATIONS}/{id_}/attempts"),
                ("PATCH", f"{NOTIFICATIONS}/{id_}/cancel"),
                ("POST", f"{NOTIFICATIONS}/{id_}/retry"),
                ("GET", f"{API}/batches/{id_}"),
                ("PATCH", f"{API}/batches/{id_}/cancel"),
                ("GET", f"{TEMPLATES}/{id_}"),
                ("PUT", f"{TEMPLATES}/{id_}"),
                ("DELETE", f"{TEMPLATES}/{id_}"),
                ("POST", f"{TEMPLATES}/{id_}/preview"),
            ):
                body = json.dumps(TEMPLATE).encode() if method == "PUT" else b"{}"
                assert_error(refusing_web.request(method, path, body, JSON), 404)

    def test_other_methods(self, refusing_web: Web) -> None:
        for method, path in (
            ("DELETE", NOTIFICATIONS),
            ("GET", BATCH),
            ("POST", f"{NOTIFICATIONS}/{NOBODY}/cancel"),
            ("PATCH", f"{NOTIFICATIONS}/{NOBODY}/retry"),
            ("PATCH", f"{TEMPLATES}/{NOBODY}"),
            ("POST", f"{API}/metrics"),
        ):
            answer = refusing_web.request(method, path, b"{}", JSON)
            assert_error(answer, 405)
            assert answer.header("allow")

    def test_filters_and_cursors(self, refusing_web: Web) -> None:
        for query, field in (
            ("status=sent", "status"),
            ("channel=SMS", "channel"),
            ("recipient=", "recipient"),
            ("recipient=%00", "recipient"),
            ("recipient=a&recipient=b", "recipient"),
            ("batch_id=x", "batch_id"),
            ("date_from=yesterday", "date_from"),
            ("date_to=2026-13-01", "date_to"),
            ("page_size=0", "page_size"),
            ("page_size=101", "page_size"),
            ("page_size=1_0", "page_size"),
            ("cursor=", "cursor"),
            ("cursor=x", "cursor"),
            ("cursor=AZj3pFwee3qdL05qjAsdPx", "cursor"),  # bits behind the last byte
            ("cursor=AZj3pFwee3qdL05qjAsdPw==", "cursor"),
            ("cursor=%FF", "cursor"),
        ):
            assert fields_of(refusing_web.get(f"{NOTIFICATIONS}?{query}")) == [field], query
        assert refusing_web.get(f"{NOTIFICATIONS}?cursor=AZj3pFwee3qdL05qjAsdPw").status == 200


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


# -- whose is it


@pytest.fixture(scope="module")
def strict_of_module(django_db_setup: None) -> Iterator[Web]:
    with web_process(API_KEYS_REQUIRED="1") as started:
        yield started


@pytest.fixture
def strict(strict_of_module: Web, transactional_db: None) -> Web:
    return strict_of_module


SENDS = ("notifications:read", "notifications:write", "templates:write")


def key_of(name: str, *scopes: str) -> dict[str, str]:
    new = services.create_key(
        name=name, scopes=scopes or SENDS, expires_at=None, by="test", at=datetime.now(UTC)
    )
    return {"Authorization": f"Bearer {new.key}"}


def test_everybody_has_their_own(strict: Web) -> None:
    shop, bank = key_of("shop"), key_of("bank")
    support = key_of("support", *SENDS, "notifications:all")
    reader = key_of("reader", "notifications:read")
    batch = strict.post(BATCH, {"notifications": [SMS]}, shop).json
    id_, batch_id = batch["notifications"][0]["id"], batch["batch"]["id"]
    template = strict.post(TEMPLATES, TEMPLATE, shop).json["id"]
    [dead] = failed(caller="shop")
    seen = (
        ("GET", f"{NOTIFICATIONS}/{id_}"),
        ("GET", f"{NOTIFICATIONS}/{id_}/attempts"),
        ("GET", f"{API}/batches/{batch_id}"),
        ("GET", f"{TEMPLATES}/{template}"),
        ("POST", f"{TEMPLATES}/{template}/preview"),
    )
    changed = (
        ("POST", f"{NOTIFICATIONS}/{dead}/retry"),
        ("PATCH", f"{NOTIFICATIONS}/{id_}/cancel"),
        ("PATCH", f"{API}/batches/{batch_id}/cancel"),
        ("DELETE", f"{TEMPLATES}/{template}"),
    )

    def status(method: str, path: str, key: dict[str, str]) -> int:
        body = b'{"variables": {"Name": "Ann"}}' if method == "POST" else None
        return strict.request(method, path, body, JSON | key).status

    before = row_counts()
    for method, path in (*seen, *changed):
        assert status(method, path, bank) == 404, path
    for method, path in changed:
        assert status(method, path, reader) == 403, path
    assert row_counts() == before
    by_template = SMS | {"template_id": template, "template_variables": {"Name": "Ann"}}
    assert strict.post(NOTIFICATIONS, by_template, bank).status == 400
    assert strict.post(NOTIFICATIONS, by_template, support).status == 201
    for key, count in ((shop, 2), (bank, 0), (support, 3)):
        assert len(strict.get(NOTIFICATIONS, **key).json["data"]) == count
    for method, path in seen:
        assert status(method, path, shop) == status(method, path, support) == 200
    for method, path in changed:
        assert status(method, path, support) in (200, 204), path
    assert strict.post(NOTIFICATIONS, SMS, reader).status == 403
    assert strict.post(TEMPLATES, TEMPLATE, key_of("sender", "notifications:write")).status == 403


# -- the walk


SCRIPT = Path(__file__).resolve().parents[2] / "scripts/test.sh"


def walk(web: Web, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"BASE_URL": f"http://127.0.0.1:{web.port}", "SECONDS_TO_DELIVER": "0"}
    return subprocess.run(
        [SCRIPT], env=os.environ | given | environment, capture_output=True, text=True, check=False
    )


def test_the_walk_through_the_api(web: Web) -> None:
    """Twice on one database; deliveries are waited for where there are senders."""
    for _ in range(2):
        run = walk(web)
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.endswith("All as it should be.\n")


def test_the_walk_finds_what_is_wrong(web: Web) -> None:
    """Counts that do not add up: a row of the batch is missing behind its back."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE RULE lost AS ON INSERT TO notifications WHERE new.recipient = 'token'"
            " DO INSTEAD NOTHING"
        )
    try:
        run = walk(web)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP RULE lost ON notifications")
    assert run.returncode == 1
    assert "its counts add up" in run.stderr
