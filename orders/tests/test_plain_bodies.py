"""The shortcut for plain bodies against the definition of what is valid."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import APIException

from orders.api.plain_bodies import plain_order
from orders.api.serializers import validated_order
from restapi.json import parse_json
from restapi.tests.bodies import anything, near_misses

SIMPLE = b'{"user_id": "u1", "amount": 42.5}'
ITEM = b'{"productId": "p1", "quantity": 2, "price": 10.10}'
ORDER = b'{"customerId": "c1", "items": [%b]}'


def by_definition(body: bytes) -> object:
    """What is read, or None where it is refused."""
    with suppress(APIException):
        return validated_order(parse_json(body))
    return None


def assert_agrees(body: bytes) -> None:
    found = plain_order(body)
    assert found is None or found == by_definition(body)


@pytest.mark.parametrize(
    "body",
    [
        SIMPLE,
        b'{"amount":0.01,"user_id":"u1"}',
        b' {\n "user_id" : "u1",\t"amount" : 9999999999.99 }\r\n',
        '{"user_id": "é𝄞", "amount": 1}'.encode(),
        b'{"user_id": "' + b"u" * 255 + b'", "amount": 42.50}',
        b'{"user_id": " u, {}[]: ", "amount": 10}',
        ORDER % ITEM,
        ORDER % b", ".join([ITEM] * 100),
        b'{"items":[{"price":0,"quantity":10000,"productId":"p"}],"customerId":"c"}',
    ],
)
def test_plain_bodies_take_the_shortcut(body: bytes) -> None:
    assert plain_order(body) == by_definition(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        SIMPLE + b"x",
        b"\xef\xbb\xbf" + SIMPLE,
        b'{"user_id": "u1", "amount": "42.5"}',
        b'{"user_id": "u1", "amount": 42.505}',
        b'{"user_id": "u1", "amount": 42.500}',
        b'{"user_id": "u1", "amount": 1e2}',
        b'{"user_id": "u1", "amount": 0}',
        b'{"user_id": "u1", "amount": 0.00}',
        b'{"user_id": "u1", "amount": -1}',
        b'{"user_id": "u1", "amount": 01}',
        b'{"user_id": "u1", "amount": true}',
        b'{"user_id": "u1", "amount": null}',
        b'{"user_id": "u1", "amount": 10000000000}',
        b'{"user_id": "u1", "amount": 1, "amount": 1}',
        b'{"user_id": "u1", "amount": 1, "amount": 2}',
        b'{"user_id": "u1", "user_id": "u2", "amount": 1}',
        b'{"user_id": "u1", "amount": 1, "more": 1}',
        b'{"user_id": "u1", "amount": 1, "customerId": "c"}',
        b'{"user_id": "", "amount": 1}',
        '{"user_id": "\u2003", "amount": 1}'.encode(),
        b'{"user_id": "\\u0075", "amount": 1}',
        b'{"user_id": "a\x00b", "amount": 1}',
        b'{"user_id": "a\tb", "amount": 1}',
        b'{"user_id": "\xff", "amount": 1}',
        b'{"user_id": "\xed\xa0\x80", "amount": 1}',
        b'{"user_id": "' + b"u" * 256 + b'", "amount": 1}',
        b'{"user_id": 1, "amount": 1}',
        b'{"amount": 1}',
        b'{"customerId": "c1", "items": [{"productId": "user_id", "quantity": 1, "price": 1}]}',
        ORDER % b"",
        ORDER % b", ".join([ITEM] * 101),
        ORDER % b'{"productId": "p", "quantity": 0, "price": 1}',
        ORDER % b'{"productId": "p", "quantity": 10001, "price": 1}',
        ORDER % b'{"productId": "p", "quantity": 1.0, "price": 1}',
        ORDER % b'{"productId": "p", "quantity": 1.00000000000000000000001, "price": 1}',
        ORDER % b'{"productId": "p", "quantity": 1, "quantity": 1, "price": 1}',
        ORDER % b'{"productId": "p", "quantity": "1", "price": 1}',
        ORDER % b'{"productId": "p", "quantity": 1}',
        ORDER % b'{"productId": "p", "quantity": 1, "price": 1, "price": 2}',
    ],
)
def test_everything_else_does_not(body: bytes) -> None:
    assert plain_order(body) is None


@settings(max_examples=300, deadline=None)
@given(near_misses | anything, st.booleans())
@example({"user_id": "u1", "amount": 1.5}, False)
def test_any_json(body: Any, compact: bool) -> None:
    separators = (",", ":") if compact else None
    assert_agrees(json.dumps(body, separators=separators).encode())
    with suppress(UnicodeEncodeError):  # half a character
        assert_agrees(json.dumps(body, separators=separators, ensure_ascii=False).encode())


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([SIMPLE, ORDER % ITEM, ORDER % (ITEM + b"," + ITEM)]), st.data())
def test_a_damaged_body(body: bytes, data: st.DataObject) -> None:
    """Bytes of it replaced, dropped or repeated: keys twice, numbers of other kinds, broken text."""
    damaged = bytearray(body)
    at = data.draw(st.integers(0, len(damaged) - 1))
    end = at + data.draw(st.integers(0, 20))
    piece = data.draw(
        st.binary(max_size=3)
        | st.sampled_from([b"0", b"e1", b".5", b"-", b'"', b"\\u0041", b', "amount": 1', b"1.0"])
        | st.just(bytes(damaged[at:end]) * 2)
    )
    damaged[at:end] = piece
    assert_agrees(bytes(damaged))
