"""Whatever is sent as a body gets a documented answer, and what is refused stores nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.testing.web import JSON, Answer, Web
from orders.models import Order
from restapi.tests.bodies import anything, near_misses, reasons, wrongly_written
from restapi.tests.tables import row_counts

SIMPLE = b'{"user_id": "u1", "amount": 1}'

fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def place(web: Web, body: bytes, content_type: str = "application/json") -> int:
    """POST it; the status, after checking the answer's shape and what is stored."""
    before = row_counts()
    answer = web.request("POST", "/orders", body, {"Content-Type": content_type})
    after = row_counts()
    if answer.status in (200, 201):
        assert after["orders"] == before["orders"] + 1
    else:
        assert after == before
        assert_refused(answer)
    return answer.status


def cancel(web: Web, body: bytes, content_type: str = "application/json") -> int:
    """The same for a new order's cancellation."""
    order_id = web.request("POST", "/orders", SIMPLE, JSON).json["order_id"]
    before = row_counts()
    path = f"/orders/{order_id}/cancel"
    answer = web.request("POST", path, body, {"Content-Type": content_type})
    status = Order.objects.get(id=order_id).status
    if answer.status == 200:
        assert (answer.json["status"], status) == ("CANCELLED", "CANCELLED")
        assert row_counts()["order_changes"] == before["order_changes"] + 1
    else:
        assert (status, row_counts()) == ("CREATED", before)
        assert_refused(answer)
    return answer.status


def assert_refused(answer: Answer) -> None:
    assert answer.status in (400, 413, 415), answer.body
    assert answer.json.keys() == {"error", "details"}
    assert answer.json["error"]


@fuzz
@given(body=anything | near_misses)
def test_any_json_as_an_order(web: Web, body: Any) -> None:
    place(web, json.dumps(body).encode())


@fuzz
@given(body=anything | reasons)
def test_any_json_as_a_reason(web: Web, body: Any) -> None:
    cancel(web, json.dumps(body).encode())


@pytest.mark.parametrize("send", [place, cancel])
@fuzz
@given(body=st.binary(max_size=200))
def test_any_bytes(send: Any, web: Web, body: bytes) -> None:
    send(web, body)


@settings(fuzz, max_examples=150)
@given(body=wrongly_written(near_misses))
def test_an_order_that_is_wrongly_written(web: Web, body: bytes) -> None:
    place(web, body)


@settings(fuzz, max_examples=100)
@given(body=wrongly_written(reasons))
def test_a_reason_that_is_wrongly_written(web: Web, body: bytes) -> None:
    cancel(web, body)


@pytest.mark.parametrize(("send", "bodies"), [(place, near_misses), (cancel, reasons)])
@fuzz
@given(data=st.data())
def test_a_damaged_body(send: Any, bodies: st.SearchStrategy[Any], web: Web, data: Any) -> None:
    whole = bytearray(json.dumps(data.draw(bodies)).encode())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    send(web, bytes(whole))


@pytest.mark.parametrize(("send", "body"), [(place, SIMPLE), (cancel, b'{"reason": "late"}')])
@settings(fuzz, max_examples=25)
@given(kind=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_content_type(send: Any, body: bytes, web: Web, kind: str) -> None:
    send(web, body, kind)


@settings(fuzz, max_examples=80)
@given(
    written=st.from_regex(
        r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
    )
)
def test_an_amount_is_taken_exactly_when_it_is_valid(web: Web, written: str) -> None:
    """Every number that JSON can write, against the contract's sentence."""
    number = Decimal(written)
    valid = Decimal(0) < number < Decimal(10**10) and number * 100 == int(number * 100)
    body = f'{{"user_id": "u1", "amount": {written}}}'.encode()
    assert place(web, body) == (200 if valid else 400)


@fuzz
@given(wanted=st.text(min_size=1, max_size=12), bad=st.booleans())
def test_text_comes_back_as_it_was_sent(web: Web, wanted: str, bad: bool) -> None:
    """Every character but NUL and lone surrogates, however JSON writes it."""
    reason = wanted + "\0" * bad
    body = json.dumps({"reason": reason}, ensure_ascii=len(wanted) % 2 == 0)
    takes = "\0" not in reason
    assert cancel(web, body.encode()) == (200 if takes else 400)
    if takes:
        newest = web.get("/orders?limit=1").json[0]["orderId"]
        assert web.get(f"/orders/{newest}").json["history"][-1]["reason"] == reason
