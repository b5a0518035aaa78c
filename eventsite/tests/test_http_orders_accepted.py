"""What the API of orders accepts and answers, over real HTTP."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import pytest
from django.conf import settings

from devtools.testing.web import JSON, Web
from eventsite.tests.order_bodies import ITEM, MOMENT, ORDER, SIMPLE, order, placed
from orders.models import Order, OrderLine
from outbox.models import OutboxEvent


def test_simple_body(web: Web) -> None:
    answer = web.post("/orders", SIMPLE)
    assert answer.status == 200
    assert answer.json.keys() == {"status", "event_id", "order_id"}
    assert answer.json["status"] == "success"
    stored = Order.objects.get()
    assert (str(stored.id), stored.customer_id) == (answer.json["order_id"], "u1")
    assert (stored.total, stored.status) == (Decimal("42.5"), "CREATED")
    assert OrderLine.objects.count() == 0
    created, simple = OutboxEvent.objects.order_by("id")
    assert (created.topic, created.type) == ("order-events", "ORDER_CREATED")
    assert (simple.topic, str(simple.event_id)) == ("orders.created", answer.json["event_id"])


def test_order_body(web: Web) -> None:
    answer = web.post("/orders", ORDER)
    assert answer.status == 201
    assert list(answer.json) == ["orderId", "status", "totalPrice", "createdAt"]
    assert b'"totalPrice":70,' in answer.body
    assert MOMENT.fullmatch(answer.json["createdAt"])
    assert answer.json["status"] == "CREATED"
    stored = Order.objects.get(id=UUID(answer.json["orderId"]))
    assert (stored.total, stored.customer_id) == (Decimal(70), "cust-123")
    assert OrderLine.objects.count() == 2
    event = json.loads(OutboxEvent.objects.get(topic="order-events").payload)
    assert event["createdAt"] == event["timestamp"] == answer.json["createdAt"]


@pytest.mark.parametrize(
    "body",
    [
        order(unknown=1, note={"deep": [None]}),
        order(items=[ITEM] * 100),
        order(items=[ITEM | {"price": 0, "extra": "x"}]),
        order(items=[ITEM | {"quantity": 10_000, "price": 9_999_999_999.99}]),
        order(customerId="é" * 255),
    ],
)
def test_bodies_at_the_limit(web: Web, body: dict[str, Any]) -> None:
    answer = web.post("/orders", body)
    assert answer.status == 201, answer.body
    assert OrderLine.objects.count() == len(body["items"])


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("42.50", "42.5"),
        ("42.500", "42.5"),
        ("1e2", "100"),
        ("0.01", "0.01"),
        ("9999999999.99", "9999999999.99"),
    ],
)
def test_amounts_are_exact(web: Web, written: str, told: str) -> None:
    body = f'{{"user_id": "u1", "amount": {written}, "items_": 1}}'.encode()
    assert web.request("POST", "/orders", body, JSON).status == 200
    [entry] = json.loads(web.get("/orders").body, parse_float=str, parse_int=str)
    assert entry["totalPrice"] == told


def test_body_in_chunks(web: Web) -> None:
    pieces = [b'{"user_id": "u1"', b', "amount": 42.5}']
    answer = web.request("POST", "/orders", iter(pieces), JSON)
    assert answer.status == 200, answer.body
    assert Order.objects.count() == 1


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/JSON"])
def test_content_types_of_json(web: Web, kind: str) -> None:
    answer = web.request("POST", "/orders", json.dumps(SIMPLE).encode(), {"Content-Type": kind})
    assert answer.status == 200, answer.body


def test_largest_body_that_is_taken(web: Web) -> None:
    body = json.dumps(ORDER).encode()
    padded = body + b" " * (settings.MAX_BODY_BYTES - len(body))
    assert web.request("POST", "/orders", padded, JSON).status == 201


def test_life_of_an_order(web: Web) -> None:
    order_id = placed(web)
    answer = web.post(f"/orders/{order_id}/pay")
    assert answer.status == 200
    assert answer.json["status"] == "PAID"
    assert answer.json == web.get(f"/orders/{order_id}").json
    answer = web.post(f"/orders/{order_id}/ship", {"ignored": True})
    assert (answer.status, answer.json["status"]) == (200, "SHIPPED")
    detail = web.get(f"/orders/{order_id}").json
    assert list(detail) == [
        *("orderId", "customerId", "status", "totalPrice", "createdAt"),
        *("items", "history", "eventIds"),
    ]
    assert detail["items"] == ORDER["items"]
    assert [(step["from"], step["to"]) for step in detail["history"]] == [
        (None, "CREATED"),
        ("CREATED", "PAID"),
        ("PAID", "SHIPPED"),
    ]
    for step in detail["history"]:
        assert step.keys() == {"from", "to", "reason", "actor", "at"}
        assert (step["reason"], step["actor"]) == ("", "anonymous")
        assert MOMENT.fullmatch(step["at"])
    published = OutboxEvent.objects.order_by("id").values_list("event_id", flat=True)
    assert detail["eventIds"] == [str(event_id) for event_id in published]


@pytest.mark.parametrize("body", [None, {}, {"reason": ""}, {"reason": "too late"}, {"why": 1}])
def test_cancel_with_and_without_a_reason(web: Web, body: dict[str, Any] | None) -> None:
    order_id = placed(web, "pay")
    answer = web.post(f"/orders/{order_id}/cancel", body)
    assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
    assert answer.json["history"][-1]["reason"] == (body or {}).get("reason", "")


def test_list_is_newest_first(web: Web) -> None:
    ids = [placed(web) for _ in range(3)]
    listed = web.get("/orders").json
    assert [entry["orderId"] for entry in listed] == ids[::-1]
    for entry in listed:
        assert list(entry) == ["orderId", "customerId", "status", "totalPrice", "createdAt"]
        assert MOMENT.fullmatch(entry["createdAt"])
    assert [entry["orderId"] for entry in web.get("/orders?limit=2").json] == ids[:0:-1]


def test_list_of_nothing_and_its_default_limit(web: Web) -> None:
    assert web.get("/orders").json == []
    for _ in range(21):
        web.post("/orders", SIMPLE)
    assert len(web.get("/orders").json) == 20
    assert len(web.get("/orders?limit=100").json) == 21


def test_pages_follow_the_link_header(web: Web) -> None:
    ids = [placed(web) for _ in range(5)]
    ids += [web.post("/orders", SIMPLE).json["order_id"]]
    found, path = [], "/orders?limit=2&status=CREATED"
    for _ in range(3):
        answer = web.get(path)
        found += [entry["orderId"] for entry in answer.json]
        link = re.fullmatch(r'<(/orders\?[^>]+)>; rel="next"', answer.header("link"))
        path = link[1] if link else ""
    assert (found, path) == (ids[::-1], "")
    assert web.get("/orders?limit=6").header("link") == ""


def test_the_next_page_is_narrowed_like_this_one(web: Web) -> None:
    for _ in range(2):
        web.post("/orders", SIMPLE | {"user_id": "é & co"})
    wanted = {
        "limit": "1",
        "status": "CREATED",
        "customerId": "é & co",
        "created_from": "2020-03-11T22:00:00+01:00",
        "created_to": "2100-01-01T00:00:00Z",
    }
    link = web.get(f"/orders?{urlencode(wanted)}&unknown=1").header("link")
    found = re.fullmatch(r'</orders\?([^>]+)>; rel="next"', link)
    assert found is not None
    told = dict(parse_qsl(found[1], strict_parsing=True))
    assert told == wanted | {"cursor": told["cursor"]}


def test_lists_are_narrowed(web: Web) -> None:
    paid, simple = placed(web, "pay"), web.post("/orders", SIMPLE).json["order_id"]

    def ids(query: str) -> list[str]:
        return [entry["orderId"] for entry in web.get(f"/orders?{query}").json]

    assert ids("status=PAID") == [paid]
    assert ids("customerId=u1") == [simple]
    assert ids("customerId=u1&status=PAID") == []
    moment = web.get(f"/orders/{paid}").json["createdAt"]
    assert paid in ids(f"created_from={moment}")
    assert paid not in ids(f"created_to={moment}")
    assert ids(f"created_from={moment}&created_to={moment}") == []
    assert ids("created_from=2100-01-01T00:00:00Z") == []
