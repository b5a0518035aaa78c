"""Secrets in what somebody sent, each with a mark of its own: who looks into it for an error sees none."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from devtools.relay import broker
from devtools.relay.messages import Message
from devtools.testing.installed import needs_rabbitmq
from devtools.testing.relay import a_policy, relaying, until, waiting_letters
from devtools.testing.sessions import cookie_of
from devtools.testing.web import web_process
from eventsite.tests.marks import Marks
from notifications.models import Attempt, Notification
from notifications.tests.samples import failed
from outbox.models import DeadLetter, OutboxEvent
from outbox.rabbitmq.policy import RelayPolicy

EVENT = UUID("0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f")
SEEN = "seen-by-who-looks-for-an-error"


def payload_with(marks: Marks, name: str) -> str:
    """Secrets by the name of their field, by their look, and in JSON within a text; and one that is none."""
    return json.dumps(
        {
            "note": SEEN,
            "password": marks.new(f"password {name}"),
            "lines": [{"clientSecret": marks.new(f"field {name}")}],
            "said": f"they sent Bearer {marks.new(f'bearer {name}')}",
            "body": json.dumps({"api_key": marks.new(f"inner {name}")}),
        }
    )


def error_with(marks: Marks, name: str) -> str:
    return f"ValueError: {SEEN}: token={marks.new(f'error {name}')} was refused"


@pytest.fixture
def refused_by_a_relay(transactional_db: None) -> tuple[Marks, RelayPolicy]:
    """A queue with one dead letter, made by a relay, with secrets in its body and headers."""
    marks, policy = Marks(), a_policy("secrets")
    body = json.dumps({"event_id": 7, "payload": json.loads(payload_with(marks, "relayed"))})
    headers = {"authorization": f"Bearer {marks.new('header relayed')}"}
    broker.publish(policy.url, policy.queue, [Message(body.encode(), headers=headers)])
    with relaying(policy):
        until(lambda: waiting_letters(policy) == 1, "it is a dead letter")
    return marks, policy


@needs_rabbitmq
@pytest.mark.usefixtures("transactional_db", "permissions")
def test_whoever_looks_into_a_payload_sees_no_secret(
    refused_by_a_relay: tuple[Marks, RelayPolicy],
) -> None:
    """Of events, of notifications and of the relay: on the operators' page, in journeys, in the admin."""
    marks, policy = refused_by_a_relay
    event = OutboxEvent.objects.create(
        event_id=EVENT,
        lane=1,
        topic="order-events",
        key="k",
        type="ORDER_CREATED",
        source="/orders",
        payload=payload_with(marks, "event"),
    )
    letter = DeadLetter.objects.create(
        handler="record_sales",
        event_id=EVENT,
        topic="order-events",
        key="k",
        state=DeadLetter.State.DEAD,
        attempts=1,
        error=error_with(marks, "letter"),
        payload=payload_with(marks, "letter"),
    )
    [sent] = failed()
    Notification.objects.filter(id=sent).update(
        error_message=error_with(marks, "notification"),
        template_variables=json.loads(payload_with(marks, "notification")),
    )
    Attempt.objects.create(
        notification_id=sent, number=1, outcome="failed", error=error_with(marks, "attempt")
    )
    with web_process(RABBITMQ_URL=policy.url, RABBITMQ_QUEUE=policy.queue) as web:
        cookie = cookie_of(User.objects.create_superuser("chief"))
        listed = web.get("/ops/relay-letters", **cookie).body.decode()
        [relayed] = set(re.findall(r"/ops/relay-letters/([\w-]{36})", listed))
        shown = [
            *(f"/ops/letters/{letter.id}", f"/ops/relay-letters/{relayed}"),
            *(f"/admin/outbox/deadletter/{letter.id}/change/",),
            *(f"/admin/outbox/outboxevent/{event.id}/change/",),
            *(f"/admin/notifications/notification/{sent}/change/",),
            *("/ops/letters", f"/ops/journey?id={EVENT}", f"/ops/journey?id={sent}"),
            *(f"/ops/act/discard-letter?on={letter.id}", f"/ops/act/replay-letters?on={letter.id}"),
            *(f"/ops/act/replay-letters?on={sent}", "/admin/outbox/deadletter/"),
            *("/admin/notifications/notification/", "/ops/"),
        ]
        hidden = [
            *("/ops/status.json", "/ops/live", "/admin/outbox/outboxevent/"),
            *(f"/ops/act/replay-relay-letters?on={relayed}", "/ops/relay-letters"),
            f"/ops/act/discard-relay-letter?on={relayed}",
        ]
        places = {path: web.get(path, **cookie).body.decode() for path in (*shown, *hidden)}
        places["log"] = web.process.log.read_text(errors="replace")
    assert len(marks.known) > 18
    assert marks.found_in(places) == []
    assert [path for path in shown if SEEN not in places[path]] == [], (
        "there is nothing to look into"
    )
