"""Orders with keys, below HTTP: whose key it is, and what a batch costs."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from orders.api.commands import PLACE_ORDER
from orders.models import Order
from orders.tests.samples import order
from outbox.models import OutboxEvent
from restapi.context import CURRENT_CALLER
from restapi.idempotency import IdempotencyKey, Keyed, key_of_headers
from restapi.models import IdempotencyRow

pytestmark = pytest.mark.django_db(transaction=True)


def key(text: str) -> IdempotencyKey | None:
    headers = [(b"idempotency-key", text.encode())]
    return key_of_headers(headers, endpoint="POST /orders", body=b"{}")


def statements(size: int, *, keyed: bool) -> int:
    """Of a batch of new orders, BEGIN and COMMIT left out."""
    batch = [Keyed(order(), key(f"{size}-{number}") if keyed else None) for number in range(size)]
    with CaptureQueriesContext(connection) as captured:
        answers = PLACE_ORDER.perform(batch)
    assert [answer.status for answer in answers] == [201] * size
    return sum(query["sql"] not in ("BEGIN", "COMMIT") for query in captured)


def test_a_batch_takes_five_statements_with_keys_and_two_without() -> None:
    assert [statements(size, keyed=False) for size in (1, 50)] == [2, 2]
    assert [statements(size, keyed=True) for size in (1, 50)] == [5, 5]
    assert (Order.objects.count(), IdempotencyRow.objects.count()) == (102, 51)


def test_one_key_in_one_batch_is_one_order() -> None:
    answers = PLACE_ORDER.perform([Keyed(order(), key("k")) for _ in range(3)])
    assert len({answer.body for answer in answers}) == 1
    assert [bool(answer.headers) for answer in answers] == [False, True, True]
    assert (Order.objects.count(), OutboxEvent.objects.count()) == (1, 3)


def test_a_key_belongs_to_one_caller(client: Client) -> None:
    def post(caller: str) -> Any:
        token = CURRENT_CALLER.set(caller)
        try:
            body = {"user_id": "u1", "amount": 42.5}
            headers = {"Idempotency-Key": "k"}
            return client.post("/orders", body, content_type="application/json", headers=headers)
        finally:
            CURRENT_CALLER.reset(token)

    alice, bob, alice_again = post("alice"), post("bob"), post("alice")
    assert [answer.status_code for answer in (alice, bob, alice_again)] == [200] * 3
    assert alice.content != bob.content
    assert alice.content == alice_again.content
    assert not bob.has_header("Idempotent-Replayed")
    assert alice_again["Idempotent-Replayed"] == "true"
    assert Order.objects.count() == 2
