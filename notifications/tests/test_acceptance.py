"""What is stored of a notification, its key, its batch and its event."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY
from rest_framework.exceptions import ValidationError

from notifications.acceptance import (
    KeyReused,
    KeyRunning,
    KeyTaken,
    Unfit,
    accepting,
    accepting_or_refusing,
)
from notifications.api.reading import read_notification
from notifications.keys import READ_KEYS
from notifications.models import Batch, Notification, NotificationKey
from notifications.queries import Owner, notification_in_words
from notifications.tests.samples import (
    EMAIL,
    NEXT_MONTH,
    PUSH,
    SMS,
    TRACE,
    accept,
    accept_batch,
    asking,
    template,
)
from outbox.database.round_trips import Change, run
from outbox.database.unit_of_work import unit_of_work
from outbox.models import OutboxEvent
from restapi.idempotency import TRY_LOCKS
from restapi.tests.sessions import other_session
from restapi.tests.tables import row_counts

pytestmark = pytest.mark.django_db(transaction=True)
LATER = NEXT_MONTH


def in_an_hour(**more: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=1, **more)).isoformat()


def count_of_accepted() -> float:
    labels = {"channel": "sms", "priority": "high"}
    return REGISTRY.get_sample_value("notifications_accepted_total", labels) or 0.0


def shown(id_: str) -> Any:
    """What the API says of it now."""
    words = notification_in_words(
        Notification.objects.get(id=id_).id, Owner("shop", sees_all=False)
    )
    assert words is not None
    return json.loads(words)


def test_the_answer_is_what_is_stored() -> None:
    """For each shape: what a caller is told at once is what they read later."""
    mine = template("Hi {{ .Name }}")
    for body in (
        SMS,
        {**EMAIL, "priority": "high", "idempotency_key": "k é\u2028"},
        {**PUSH, "priority": "low", "scheduled_at": in_an_hour()},
        {**SMS, "expires_at": in_an_hour(microseconds=1), "template_variables": {"Name": "Ann"}},
        {**SMS, "template_id": mine, "template_variables": {"Name": 'Ö"\\\n'}},
        {**SMS, "template_id": mine.upper(), "template_variables": {}},
    ):
        [accepted] = accept(body)
        assert json.loads(accepted.words) == shown(accepted.id), body
        assert list(json.loads(accepted.words)) == list(shown(accepted.id))


def test_an_accepted_one_leaves_a_row_and_an_event() -> None:
    before, counted = row_counts(), count_of_accepted()
    [accepted] = accept({**SMS, "priority": "high"})
    after = row_counts()
    assert count_of_accepted() == counted + 1
    assert {
        table: after[table] - before[table] for table in after if after[table] > before[table]
    } == {
        "notifications": 1,
        "event_outbox": 1,
    }
    event = OutboxEvent.objects.get()
    assert (event.topic, event.type, event.key) == (
        "notifications.high", "NOTIFICATION_PENDING", accepted.id,
    )  # fmt: skip
    assert json.loads(event.payload) == {"notification_id": accepted.id, "channel": "sms"}
    assert str(event.event_id) == accepted.id
    assert event.traceparent == TRACE.traceparent
    row = Notification.objects.get()
    assert (row.status, row.due_at, row.ready_at, row.attempt) == ("pending", None, None, 0)
    assert (row.traceparent, row.correlation_id) == (TRACE.traceparent, "c-1")
    assert row.expires_at - row.created_at == timedelta(hours=1)
    assert int(row.id.hex[:12], 16) == row.created_at.timestamp() * 1000


def test_a_scheduled_one_has_no_event_yet() -> None:
    at = in_an_hour()
    [accepted] = accept({**SMS, "scheduled_at": at})
    row = Notification.objects.get(id=accepted.id)
    assert (row.status, row.due_at) == ("scheduled", None)
    assert row.expires_at - datetime.fromisoformat(at) == timedelta(days=1)
    assert not OutboxEvent.objects.exists()


def test_a_thousand_take_the_statements_of_one() -> None:
    counts = []
    for number in (1, 1000):
        with CaptureQueriesContext(connection) as captured:
            accept_batch(*[{**SMS, "content": f"{index}"} for index in range(number)])
        counts.append(len([each for each in captured if "INSERT" in each["sql"]]))
    assert counts == [3, 3]  # the batch, its notifications, their events
    assert Notification.objects.count() == OutboxEvent.objects.count() == 1001


class TestKeys:
    """The idempotency_key of a body."""

    def test_an_equal_one_is_there_already(self) -> None:
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        body = {**EMAIL, "idempotency_key": "k", "scheduled_at": at.isoformat()}
        [first] = accept(body)
        zone = (at + timedelta(hours=2)).isoformat().replace("+00:00", "+02:00")
        for equal in (
            body,
            {**body, "priority": "normal", "template_id": None, "ignored": 1},
            {**body, "scheduled_at": zone},
        ):
            with pytest.raises(KeyTaken) as taken:
                accept(equal)
            assert json.loads(taken.value.words) == shown(first.id)
        assert Notification.objects.count() == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"content": "Hello."},
            {"recipient": "bob@example.com"},
            {"priority": "high"},
            {"expires_at": LATER},
            {"template_variables": {}},
        ],
    )
    def test_another_one_is_refused(self, change: dict[str, Any]) -> None:
        body = {**EMAIL, "idempotency_key": "k"}
        accept(body)
        with pytest.raises(KeyReused):
            accept(body | change)

    def test_keys_are_their_callers_own(self) -> None:
        for caller in ("shop", "bank"):
            accept({**SMS, "idempotency_key": "k"}, caller=caller)
        assert Notification.objects.count() == 2

    def test_a_key_whose_first_request_runs(self) -> None:
        body = {**SMS, "idempotency_key": "k"}
        key = read_notification(body, asking()).key
        assert key is not None
        with other_session() as other, other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(%s)", (key.lock,))
            with pytest.raises(KeyRunning):
                accept(body)
        accept(body)

    def test_a_key_is_read_behind_its_lock(self) -> None:
        """Its holder has committed between our look at the lock and at the row: the row is found."""
        keyed = read_notification({**SMS, "idempotency_key": "k"}, asking())
        with unit_of_work():
            steps = accepting([keyed])
            assert not isinstance(steps, Change)
            asked = next(steps)
            assert [sql for sql, _ in asked.statements] == [TRY_LOCKS, READ_KEYS]
            steps.close()

    def test_a_key_is_free_after_a_day(self) -> None:
        body = {**SMS, "idempotency_key": "k"}
        [first] = accept(body)
        NotificationKey.objects.update(created_at=datetime.now(UTC) - timedelta(hours=23))
        with pytest.raises(KeyTaken):
            accept(body)
        NotificationKey.objects.update(created_at=datetime.now(UTC) - timedelta(hours=25))
        [second] = accept({**body, "content": "another"})
        assert (
            NotificationKey.objects.get().notification_id
            == Notification.objects.get(id=second.id).id
        )
        assert first.id != second.id

    def test_times_that_have_passed_are_no_matter_to_a_known_key(self) -> None:
        body = {**SMS, "idempotency_key": "k", "expires_at": in_an_hour()}
        accept(body)
        later = asking()
        later.now = datetime.now(UTC) + timedelta(hours=2)
        with unit_of_work(), pytest.raises(KeyTaken):
            run_all(read_notification(body, later))
        with unit_of_work(), pytest.raises(Unfit):
            run_all(read_notification({**body, "idempotency_key": "new"}, later))
        with pytest.raises(ValidationError):
            read_notification({**body, "idempotency_key": None}, later)

    def test_two_of_one_key_in_a_hot_batch_are_one(self) -> None:
        new = [read_notification({**SMS, "idempotency_key": "k"}, asking()) for _ in range(3)]
        with unit_of_work():
            steps = accepting(new)
            assert not isinstance(steps, Change)
            found = run(steps)
        assert [each is not None for each in found] == [True, False, False]
        assert Notification.objects.count() == 1


def run_all(*new: Any) -> Any:
    return run(accepting_or_refusing(new))


class TestTemplates:
    """Rendered at accept time."""

    def test_a_rendered_one_keeps_its_text(self) -> None:
        id_ = template("Hi {{.Name}}", name="greeting")
        [accepted] = accept(
            {"recipient": "+905000000000", "channel": "sms", "template_id": id_,
             "template_variables": {"Name": "{{.Name}}"}}
        )  # fmt: skip
        row = Notification.objects.get(id=accepted.id)
        assert (row.content, row.rendered, row.template_name) == ("Hi {{.Name}}", True, "greeting")

    def test_a_missing_variable_falls_back(self) -> None:
        id_ = template("Hi {{.Name}}")
        [accepted] = accept({**SMS, "template_id": id_})
        row = Notification.objects.get(id=accepted.id)
        assert (row.content, row.rendered) == (SMS["content"], False)
        assert shown(accepted.id)["template_id"] == id_

    def test_content_is_looked_at_only_if_it_is_used(self) -> None:
        id_ = template("Hi {{.Name}}")
        for content in ("x" * 161, "", "  ", 1, 2**70, Decimal("0.1"), ["a"], "a\0b", "\ud800"):
            unfit_content = {**SMS, "content": content, "template_id": id_}
            [accepted] = accept({**unfit_content, "template_variables": {"Name": "Ann"}})
            assert shown(accepted.id)["content"] == "Hi Ann"
            with pytest.raises(Unfit) as unfit:
                accept(unfit_content)
            assert list(unfit.value.errors) == ["content"]

    def test_content_that_is_not_used_still_tells_requests_apart(self) -> None:
        body = {
            **SMS,
            "template_id": template("Hi {{.Name}}"),
            "template_variables": {"Name": "Ann"},
            "idempotency_key": "k",
        }
        accept({**body, "content": "\ud800"})
        with pytest.raises(KeyTaken):
            accept({**body, "content": "\ud800"})
        for other in ("\ud801", 1, "", "x", None):
            with pytest.raises(KeyReused):
                accept({**body, "content": other})

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"template_id": "0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f"}, "template_id"),
            ({"channel": "push"}, "template_id"),
            ({"content": None}, "template_variables"),
            ({"template_variables": {"Name": "x" * 160}}, "template_variables"),
        ],
    )
    def test_what_cannot_be_rendered(self, change: dict[str, Any], field: str) -> None:
        body = {**SMS, "template_id": template("Hi {{.Name}}")} | change
        with pytest.raises(Unfit) as unfit:
            accept(body)
        assert list(unfit.value.errors) == [field]
        assert not Notification.objects.exists()

    def test_a_text_with_nothing_in_it(self) -> None:
        body = {**SMS, "template_id": template("{{.Name}}"), "template_variables": {"Name": " "}}
        with pytest.raises(Unfit):
            accept(body)

    def test_nobody_uses_the_templates_of_another(self) -> None:
        body = {**SMS, "template_id": template("Hi", caller="bank")}
        with pytest.raises(Unfit):
            accept(body)
        accept(body, caller="bank")


class TestBatches:
    """All or nothing."""

    def test_one_with_known_keys(self) -> None:
        """What is there is told as it is, and is no member."""
        known = {**SMS, "idempotency_key": "k"}
        [first] = accept(known)
        accepted = accept_batch(EMAIL, known, {**PUSH, "idempotency_key": "new"})
        assert [each.id == first.id for each in accepted.notifications] == [False, True, False]
        batch = Batch.objects.get()
        assert (str(batch.id), batch.total_count) == (accepted.id, 2)
        assert Notification.objects.filter(batch_id=batch.id).count() == 2
        assert shown(first.id)["batch_id"] is None
        assert OutboxEvent.objects.filter(key=first.id).count() == 1

    def test_a_key_of_another_body_stops_all(self) -> None:
        accept({**SMS, "idempotency_key": "k"})
        with pytest.raises(KeyReused) as reused:
            accept_batch(EMAIL, {**EMAIL, "idempotency_key": "k"})
        assert reused.value.place == 1
        assert (Notification.objects.count(), Batch.objects.count()) == (1, 0)

    def test_a_key_that_runs_elsewhere_stops_all(self) -> None:
        body = {**SMS, "idempotency_key": "k"}
        key = read_notification(body, asking()).key
        assert key is not None
        with other_session() as other, other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(%s)", (key.lock,))
            with pytest.raises(KeyRunning):
                accept_batch(EMAIL, body)
        assert not Notification.objects.exists()

    def test_a_bad_template_stops_all(self) -> None:
        missing = "0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f"
        with pytest.raises(Unfit) as unfit:
            accept_batch(EMAIL, EMAIL, {**EMAIL, "template_id": missing})
        assert unfit.value.place == 2
        assert not Notification.objects.exists()
