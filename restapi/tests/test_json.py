"""The strict parser and the renderer, by themselves."""

from __future__ import annotations

import io
import json
import time
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from restapi.json import BodyTooLarge, JSONParser, JSONRenderer


def parse(body: bytes) -> Any:
    return JSONParser().parse(io.BytesIO(body))


def test_numbers_are_exact() -> None:
    body = parse(b'{"a": 0.1, "b": 9999999999.99, "c": 7, "d": 1e2}')
    assert body == {"a": Decimal("0.1"), "b": Decimal("9999999999.99"), "c": 7, "d": Decimal(100)}
    assert [type(value) for value in body.values()] == [Decimal, Decimal, int, Decimal]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a" 1}',
        b'{"a": 1} {"a": 1}',
        b"user_id=u1&amount=1",
        b"undefined",
        b"+1",
        b"01",
        b".5",
        b"1.",
        b"0x10",
        b'"\x01"',
        b'"open',
        b'"\\x"',
    ],
)
def test_malformed(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse(body)


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("body", [b"%b", b'{"amount": %b}', b'{"ignored": [[%b]]}'])
def test_constants_that_are_no_json(body: bytes, constant: bytes) -> None:
    with pytest.raises(ParseError, match="is not a JSON number"):
        parse(body % constant)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1}, "a": {"b": 2}}',
        b'{"x": [{"a": "1", "a": 1}]}',
        b'{"a": null, "a": false}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a": true, "a": 1}',
        b'{"a": [{"b": 0}], "a": [{"b": false}]}',
    ],
)
def test_key_given_twice_with_different_values(body: bytes) -> None:
    with pytest.raises(ParseError, match="given twice"):
        parse(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1, "a": 1}', 1),
        (b'{"a": 1, "a": 1.0}', 1),
        (b'{"a": {"b": [1, "c"]}, "a": {"b": [1, "c"]}}', {"b": [1, "c"]}),
        (b'{"a": true, "a": true}', True),
    ],
)
def test_key_given_twice_with_the_same_value(body: bytes, value: Any) -> None:
    assert parse(body) == {"a": value}


@pytest.mark.parametrize(
    "body",
    [
        b'"\xff"',
        b'{"\xc3\x28": 1}',
        b'"\xed\xa0\x80"',
        '"é"'.encode("latin-1"),
        '"é"'.encode("utf-16"),
    ],
)
def test_bytes_that_are_no_utf8(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse(body)


def test_byte_order_mark_is_no_json() -> None:
    with pytest.raises(ParseError):
        parse(b'\xef\xbb\xbf{"a": 1}')


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 100_000, b"[" * 5000 + b"]" * 5000])
def test_nesting_without_end(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse(body)


def test_a_refusal_is_short_however_long_the_key() -> None:
    key = b'"' + b"k" * 100_000 + b'"'
    with pytest.raises(ParseError) as refused:
        parse(b"{" + key + b": 1, " + key + b": 2}")
    assert "'kkkkk" in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"quantity": ' + b"9" * 5000 + b"}", "an integer in it has too many digits"),
        (b'{"quantity": -' + b"9" * 5000 + b"}", "an integer in it has too many digits"),
        (b'{"a": "\xff"}', "it is not UTF-8 at byte 7"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
    ],
)
def test_what_python_would_put_in_its_own_words(body: bytes, sentence: str) -> None:
    with pytest.raises(ParseError) as refused:
        parse(body)
    assert str(refused.value) == f"The body is not valid JSON: {sentence}."


@pytest.mark.parametrize("token", [b"1e999999", b"-1e999999", b"1e-999999"])
def test_exponents_stay_cheap(token: bytes) -> None:
    assert parse(token) == Decimal(token.decode())


@pytest.mark.parametrize(
    "token", [b"1e99999999999999999999", b"1e-99999999999999999999", b"0e9999999999999999999"]
)
def test_exponents_beyond_what_a_decimal_holds(token: bytes) -> None:
    with pytest.raises(ParseError):
        parse(b'{"ignored": ' + token + b"}")


def test_minus_zero() -> None:
    assert parse(b"[-0, -0.0]") == [0, 0]


def test_body_limit_is_inclusive() -> None:
    limit = settings.MAX_BODY_BYTES
    assert parse(b'"' + b"a" * (limit - 2) + b'"') == "a" * (limit - 2)
    with pytest.raises(BodyTooLarge):
        parse(b'"' + b"a" * (limit - 1) + b'"')


def test_largest_bodies_are_quick() -> None:
    limit = settings.MAX_BODY_BYTES
    number = b"1." + b"0" * (limit - 2)
    keys = b"{" + b",".join(b'"%d":0' % key for key in range(90_000)) + b"}"
    started = time.perf_counter()
    parse(number)
    parse(keys)
    assert time.perf_counter() - started < 5


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@hypothesis_settings(max_examples=50)
@given(plain_json)
def test_reads_what_others_write(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with suppress(ParseError):
        parse(body)


def test_renderer_writes_exact_numbers() -> None:
    body = JSONRenderer().render({"a": Decimal("42.5"), "b": Decimal(70), "c": "é", "d": None})
    assert body == '{"a":42.5,"b":70,"c":"é","d":null}'.encode()


def test_renderer_without_a_body() -> None:
    assert JSONRenderer().render(None) == b""
