"""The shortcut for plain bodies of POST /posts against the definition of what is valid."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import APIException

from feeds.api.commands import plain_post
from feeds.api.serializers import validated_post
from restapi.json import parse_json

texts = st.one_of(
    st.text(max_size=8),
    st.text(alphabet='\x00\x1f\x7f\x85\ud800/. "\\é𝄞{}:,', max_size=6),
    st.sampled_from(["", " ", ".", "..", "a/b", "x" * 255, "x" * 256]),
)
values = texts | st.none() | st.booleans() | st.integers() | st.lists(texts, max_size=2)
names = st.sampled_from(["author_id", "content", "Content", "x"])


def by_definition(body: bytes) -> object:
    """What is read, or None where it is refused."""
    with suppress(APIException):
        return validated_post(parse_json(body))
    return None


@pytest.mark.parametrize(
    "body",
    [
        b'{"author_id": "a", "content": "hello"}',
        b' {\n"content":"{}[]:, ","author_id" : "a b"}\r\n',
        '{"author_id": "é𝄞", "content": "\u2028."}'.encode(),
        b'{"author_id": "' + b"a" * 255 + b'", "content": "' + b"c" * 10_000 + b'"}',
    ],
    ids=range(4),
)
def test_plain_bodies_take_the_shortcut(body: bytes) -> None:
    assert plain_post(body) == by_definition(body) is not None


@settings(max_examples=60)
@given(st.lists(st.tuples(names, values), min_size=1, max_size=4), st.booleans(), st.data())
def test_what_the_shortcut_takes_the_definition_takes_too(
    pairs: list[tuple[str, Any]], ascii_only: bool, data: st.DataObject
) -> None:
    """Keys given twice, wrong types, texts that are none, and bytes cut off."""
    members = [f"{json.dumps(n)}: {json.dumps(v, ensure_ascii=ascii_only)}" for n, v in pairs]
    body = ("{" + ", ".join(members) + "}").encode("utf-8", "surrogatepass")
    cut = data.draw(st.sampled_from([len(body), len(body) - 1]))
    found = plain_post(body[:cut])
    assert found is None or found == by_definition(body[:cut])


@pytest.mark.parametrize(
    "body",
    [
        b'{"author_id": "a", "author_id": "b", "content": "c"}',
        b'{"author_id": "a", "content": "c", "content": "c"}',
        b'{"author_id": "a", "content": "c\x00"}',
        b'{"author_id": "a", "content": "\xff"}',
        b'\xef\xbb\xbf{"author_id": "a", "content": "c"}',
        b'{"author_id": "a", "content": "c"} ""',
        b'{"author_id": "a", "content": "c"}}',
        b'["author_id", "a", "content", "c"]',
        b'{"author_id": "a", "content": "' + b"c" * 10_001 + b'"}',
        b'{"author_id": "' + b"a" * 256 + b'", "content": "c"}',
    ],
    ids=range(10),
)
def test_what_is_not_plain_is_left_to_the_definition(body: bytes) -> None:
    assert plain_post(body) is None
