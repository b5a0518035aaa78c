"""The shortcut for bodies of texts gives what the parser gives, or asks it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from notifications.api.plain_bodies import read_json
from restapi.json import parse_json

texts = st.text(alphabet='aé"\\\n\u0000{}[]:,', max_size=6)
fields = st.dictionaries(
    st.sampled_from(["a", "b", 'c"', "d\\"]),
    st.none() | texts | st.dictionaries(texts, texts, max_size=2) | st.integers() | st.booleans(),
    max_size=3,
)
values = fields | st.fixed_dictionaries({"notifications": st.lists(fields, max_size=3)})


def outcome(read: Any, body: bytes) -> tuple[str, Any]:
    try:
        return "value", read(body)
    except ParseError:
        return "refused", None


@given(values, st.booleans())
def test_it_reads_what_the_parser_reads(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read_json(body) == parse_json(body) == value


@given(st.binary(max_size=12), values)
@example(b'{"a": "x", "a": "y"}', {})
@example(b'{"a": "x", "\\u0061": "y"}', {})
@example(b'{"notifications": [{"a": "x", "a": "y"}]}', {})
@example(b'{"v": {"a": "x", "a": "y"}}', {})
@example(b'{"a": "\\ud800"}', {})
@example(b'{"a": 1.50}', {})
@example(b'{"a": "x"} {}', {})
@example(b'\xef\xbb\xbf{"a": "x"}', {})
@example(b'{"a": "\xff"}', {})
@example(b"[" * 200 + b"]" * 200, {})
@example(b"[" * 5000, {})
@example(b"[" * 5000 + b"]" * 5000, {})
@example(b'{"a": NaN}', {})
def test_it_refuses_what_the_parser_refuses(noise: bytes, value: Any) -> None:
    whole = json.dumps(value).encode()
    for body in (noise, whole + noise, noise + whole, whole.replace(b'"', noise, 1)):
        assert outcome(read_json, body) == outcome(parse_json, body)


@pytest.mark.parametrize("twice", [b'{"a": "x", "a": "x"}', b'{"a": null, "a": null}'])
def test_a_key_twice_with_one_value_is_taken(twice: bytes) -> None:
    assert read_json(twice) == parse_json(twice)
