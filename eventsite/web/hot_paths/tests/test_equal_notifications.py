"""The same request of notifications both ways, over real HTTP: same status, headers, body and rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection

from devtools.testing.web import JSON, Web
from eventsite.web.hot_paths.tests.both_ways import NOBODY, OURS, assert_equal, coalesced, told
from notifications.tests.samples import NEXT_MONTH, SMS

pytestmark = pytest.mark.django_db(transaction=True)
NOTIFICATIONS = "/api/v1/notifications"
# Bodies of POST /api/v1/notifications, in this order.
NASTY_NOTIFICATIONS: list[Any] = [
    SMS,
    SMS | {"priority": "high", "expires_at": NEXT_MONTH.replace("Z", "+01:00")},
    SMS | {"scheduled_at": NEXT_MONTH, "unknown": [1.50, {"a": 1}]},
    SMS | {"content": 'é𝄞"\\\n'},
    SMS | {"content": ""},
    SMS | {"content": None, "template_id": NOBODY},
    SMS | {"template_id": NOBODY},
    SMS | {"template_id": "null"},
    SMS | {"template_variables": {"a": "b"}},
    SMS | {"template_variables": {"a": 1}},
    SMS | {"channel": "email"},
    SMS | {"channel": "email", "recipient": "a@bücher.example"},
    SMS | {"channel": "push", "recipient": "x" * 2049},
    SMS | {"scheduled_at": "2026-01-01T00:00:00Z"},
    SMS | {"scheduled_at": f"{NEXT_MONTH[:16]}:60Z"},
    SMS | {"recipient": "\u0000"},
    [SMS],
    b"",
    b"{}",
    b"null",
    b'{"channel": "sms", "recipient": "+905000000000", "content": "a", "content": "b"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": "a", "content": "a"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": "\\ud800"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": "\xff"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": 1e999999}',
]


def test_notifications_are_answered_before_django(ways: tuple[Web, Web]) -> None:
    """With a key of the body too."""
    for body in (SMS, SMS | {"idempotency_key": "k"}):
        before = coalesced(ways[0], "POST api/v1/notifications")
        id_ = ways[0].post(NOTIFICATIONS, body).json["id"]
        assert coalesced(ways[0], "POST api/v1/notifications") - before == 1
    route = "GET api/v1/notifications/<str:notification_id>"
    before = coalesced(ways[0], route)
    assert ways[0].get(f"{NOTIFICATIONS}/{id_}").status == 200
    assert coalesced(ways[0], route) - before == 1


def test_nasty_notifications(ways: tuple[Web, Web]) -> None:
    for body in NASTY_NOTIFICATIONS:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert_equal(ways, "POST", NOTIFICATIONS, sent, JSON)


def test_known_keys_of_notifications(ways: tuple[Web, Web]) -> None:
    """Both kinds of keys, each way on tables of its own."""
    keyed = SMS | {"idempotency_key": "k"}
    requests = [
        (keyed, {}),
        (keyed, {}),
        (keyed | {"priority": "normal"}, {"Idempotency-Key": "h"}),
        (keyed | {"content": "another"}, {"Idempotency-Key": "h"}),
        (SMS, {"Idempotency-Key": "h"}),
        (SMS, {"Idempotency-Key": "h"}),
        (SMS | {"content": "another"}, {"Idempotency-Key": "h"}),
        (keyed | {"recipient": "x"}, {}),
    ]
    answers = []
    for web in ways:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE notifications, notification_keys, idempotency_keys")
        answers.append(
            [
                told(web.post(NOTIFICATIONS, body, OURS | headers), made_up=True)
                for body, headers in requests
            ]
        )
    assert answers[0] == answers[1]
    assert [status for status, _, _ in answers[0]] == [201, 409, 409, 422, 201, 201, 422, 400]


def test_notifications_are_read_the_same(ways: tuple[Web, Web]) -> None:
    id_ = ways[0].post(NOTIFICATIONS, SMS).json["id"]
    for path in (id_, id_.upper(), NOBODY, f"{id_}?x=1", f"{id_}/", "x", "batch"):
        assert_equal(ways, "GET", f"{NOTIFICATIONS}/{path}", b"", {})
