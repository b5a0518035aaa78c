"""What the API of orders refuses, over real HTTP; it stores nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings

from devtools.testing.web import JSON, Web, assert_error
from eventsite.tests.order_bodies import (
    ITEM,
    NOBODY,
    ORDER,
    SIMPLE,
    order,
    placed,
    with_item,
    without,
)
from restapi.tests.tables import row_counts

pytest_refused = pytest.mark.usefixtures("nothing_stored")


@pytest_refused
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"7",
        b"{'user_id': 'u1', 'amount': 1}",
        b'{"user_id": "u1", "amount": NaN}',
        b'{"user_id": "u1", "amount": Infinity}',
        b'{"user_id": "u1", "amount": -Infinity}',
        b'{"user_id": "u1", "amount": 1, "amount": 2}',
        b'{"user_id": "u1", "amount": 1e99999999999999999999}',
        b'{"user_id": "u1", "amount": ' + b"9" * 5000 + b"}",
        b'{"user_id": "\xff", "amount": 1}',
        b'\xef\xbb\xbf{"user_id": "u1", "amount": 1}',
        b'{"user_id": "u1", "amount": 1, "deep": ' + b"[" * 100_000 + b"}",
    ],
)
def test_malformed_body(refusing_web: Web, body: bytes) -> None:
    assert_error(refusing_web.request("POST", "/orders", body, JSON), 400)


@pytest_refused
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (SIMPLE | {"user_id": 1}, ["user_id"]),
        (SIMPLE | {"user_id": None}, ["user_id"]),
        (SIMPLE | {"user_id": ""}, ["user_id"]),
        (SIMPLE | {"user_id": "u" * 256}, ["user_id"]),
        (SIMPLE | {"user_id": "a\0b"}, ["user_id"]),
        (SIMPLE | {"user_id": "\ud800"}, ["user_id"]),
        (SIMPLE | {"amount": "42.5"}, ["amount"]),
        (SIMPLE | {"amount": True}, ["amount"]),
        (SIMPLE | {"amount": None}, ["amount"]),
        (SIMPLE | {"amount": 0}, ["amount"]),
        (SIMPLE | {"amount": -1}, ["amount"]),
        (SIMPLE | {"amount": 42.505}, ["amount"]),
        (SIMPLE | {"amount": 10_000_000_000}, ["amount"]),
        (SIMPLE | {"amount": int("9" * 4000)}, ["amount"]),
        ({"user_id": "u1"}, ["amount"]),
        ({"amount": 1}, ["user_id"]),
        (order(customerId=7), ["customerId"]),
        (order(customerId="c" * 256), ["customerId"]),
        (without(ORDER, "customerId"), ["customerId"]),
        (without(ORDER, "items"), ["items"]),
        (order(items=[]), ["items"]),
        (order(items=None), ["items"]),
        (order(items={}), ["items"]),
        (order(items="p1"), ["items"]),
        (order(items=[ITEM] * 101), ["items"]),
        (order(items=[1]), ["items.0"]),
        (order(items=[ITEM, None]), ["items.1"]),
        (order(items=[ITEM, []]), ["items.1"]),
        (with_item(quantity=0), ["items.1.quantity"]),
        (with_item(quantity=-1), ["items.1.quantity"]),
        (with_item(quantity=10_001), ["items.1.quantity"]),
        (with_item(quantity="2"), ["items.1.quantity"]),
        (with_item(quantity=2.5), ["items.1.quantity"]),
        (with_item(quantity=True), ["items.1.quantity"]),
        (with_item(price=-0.01), ["items.1.price"]),
        (with_item(price=0.001), ["items.1.price"]),
        (with_item(price="10"), ["items.1.price"]),
        (with_item(price=10_000_000_000), ["items.1.price"]),
        (with_item(productId=""), ["items.1.productId"]),
        (with_item(productId="p" * 256), ["items.1.productId"]),
        (order(items=[{}]), ["items.0.productId", "items.0.quantity", "items.0.price"]),
    ],
)
def test_invalid_body(refusing_web: Web, body: dict[str, Any], fields: list[str]) -> None:
    error = assert_error(refusing_web.post("/orders", body), 400)
    assert [detail["field"] for detail in error["details"]] == fields
    assert fields[0] in error["error"]


@pytest_refused
@pytest.mark.parametrize(
    "body",
    [SIMPLE | ORDER, {"user_id": "u1", "items": [ITEM]}, {"amount": 1, "customerId": "c"}],
)
def test_both_shapes_in_one_body(refusing_web: Web, body: dict[str, Any]) -> None:
    error = assert_error(refusing_web.post("/orders", body), 400)
    assert "mixes" in error["error"]


@pytest_refused
@pytest.mark.parametrize("body", [{}, {"customer": 1}])
def test_neither_shape_names_both(refusing_web: Web, body: dict[str, Any]) -> None:
    error = assert_error(refusing_web.post("/orders", body), 400)
    for name in ("user_id", "amount", "customerId", "items"):
        assert name in error["error"]


@pytest_refused
def test_body_too_large_by_its_length(refusing_web: Web) -> None:
    with refusing_web.socket() as raw:
        length = settings.MAX_BODY_BYTES + 1
        raw.sendall(
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + b"Content-Length: %d\r\n\r\n" % length  # and nothing of it
        )
        answer = raw.makefile("rb").read().decode()  # the connection ends
    assert answer.startswith("HTTP/1.1 413 ")
    assert "content-type: application/json" in answer.lower()
    assert '{"error":"The body is larger than 1048576 bytes.","details":[]}' in answer


@pytest_refused
@pytest.mark.parametrize("path", ["/orders", "/orders/x/cancel", "/nothing", "/health"])
def test_body_too_large_in_chunks(refusing_web: Web, path: str) -> None:
    chunk = b'"' + b"a" * 65534 + b'"'
    answer = refusing_web.request("POST", path, iter([chunk] * 17), JSON)
    assert_error(answer, 413)


@pytest_refused
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense"]
)
def test_body_that_is_not_json_by_its_type(refusing_web: Web, kind: str) -> None:
    body = json.dumps(SIMPLE).encode()
    headers = {"Content-Type": kind} if kind else {}
    assert_error(refusing_web.request("POST", "/orders", body, headers), 415)


@pytest_refused
@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/order",
        "/orders/",
        "/orders/x/y/z",
        "/ORDERS",
        "/orders/x/pay/",
        "/%00",
        "/%ff",
        "/%c3%a9%0a",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_path(refusing_web: Web, method: str, path: str) -> None:
    assert_error(refusing_web.request(method, path), 404)


@pytest_refused
@pytest.mark.parametrize(
    "order_id", ["1", "no-uuid", NOBODY + "0", "%00", "%ff", "%ed%a0%80", NOBODY]
)
def test_unknown_order(refusing_web: Web, order_id: str) -> None:
    assert_error(refusing_web.get(f"/orders/{order_id}"), 404)
    for step in ("pay", "ship", "cancel"):
        assert_error(refusing_web.post(f"/orders/{order_id}/{step}"), 404)


@pytest.mark.parametrize(
    ("steps", "wanted", "status", "allowed"),
    [
        ([], "ship", "CREATED", ["PAID", "CANCELLED"]),
        (["pay"], "pay", "PAID", ["SHIPPED", "CANCELLED"]),
        (["pay", "ship"], "cancel", "SHIPPED", []),
        (["cancel"], "pay", "CANCELLED", []),
        (["cancel"], "cancel", "CANCELLED", []),
    ],
)
def test_illegal_move(
    web: Web, steps: list[str], wanted: str, status: str, allowed: list[str]
) -> None:
    order_id = placed(web, *steps)
    before = row_counts()
    error = assert_error(web.post(f"/orders/{order_id}/{wanted}"), 409, "status", "allowed")
    assert (error["status"], error["allowed"]) == (status, allowed)
    assert row_counts() == before
