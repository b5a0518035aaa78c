"""Whatever is sent to POST /orders gets a documented answer, and only a success stores anything."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from restapi.tests.bodies import anything, near_misses
from restapi.tests.tables import row_counts

pytestmark = pytest.mark.django_db

DOCUMENTED = {200, 201, 400, 413, 415}


def send(body: bytes, content_type: str = "application/json") -> int:
    """POST it; the status, after checking the answer's shape and what is stored."""
    before = row_counts()
    answer = Client().post("/orders", data=body, content_type=content_type)
    after = row_counts()
    assert answer.status_code in DOCUMENTED
    assert answer["Content-Type"] == "application/json"
    if answer.status_code in (200, 201):
        assert after["orders"] == before["orders"] + 1
    else:
        assert after == before
        assert answer.json().keys() == {"error", "details"}
    return answer.status_code


@settings(max_examples=80, deadline=None)
@given(anything | near_misses)
def test_any_json(body: Any) -> None:
    send(json.dumps(body).encode())


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    send(body)


@settings(max_examples=40, deadline=None)
@given(near_misses, st.data())
def test_a_damaged_body(body: Any, data: st.DataObject) -> None:
    whole = bytearray(json.dumps(body).encode())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    send(bytes(whole))


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_content_type(content_type: str) -> None:
    send(b'{"user_id": "u1", "amount": 1}', content_type)


@settings(max_examples=80, deadline=None)
@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
)
def test_an_amount_is_taken_exactly_when_it_is_valid(written: str) -> None:
    """Every number that JSON can write, against the contract's sentence."""
    number = Decimal(written)
    valid = Decimal(0) < number < Decimal(10**10) and number * 100 == int(number * 100)
    body = f'{{"user_id": "u1", "amount": {written}}}'.encode()
    assert send(body) == (200 if valid else 400)
