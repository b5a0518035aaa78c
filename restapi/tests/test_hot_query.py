"""Query strings of hot paths: read as Django reads them, or not at all."""

from __future__ import annotations

import re

import pytest
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from restapi.hot_query import MAX_BYTES, Parser, matching, one_of, parsed_query, whole_number

PARAMETERS: dict[str, Parser] = {
    "limit": whole_number(1, 100),
    "before": whole_number(0, 2**64 - 1),
    "status": one_of(["PAID", "SHIPPED"]),
    "user": matching(re.compile(r"[\w.~-]{1,64}")),
    "any": str,
}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"limit=1", {"limit": 1}),
        (b"limit=100&status=PAID", {"limit": 100, "status": "PAID"}),
        (b"status=PAID&limit=100", {"status": "PAID", "limit": 100}),
        (b"before=18446744073709551615", {"before": 2**64 - 1}),
        (b"before=0", {"before": 0}),
        (b"user=a.b~c_d-E9", {"user": "a.b~c_d-E9"}),
    ],
)
def test_what_is_sure(query: bytes, found: dict[str, object]) -> None:
    parsed = parsed_query(query, PARAMETERS)
    assert parsed is not None
    assert list(parsed.items()) == list(found.items())  # the order is the query's


@pytest.mark.parametrize(
    "query",
    [
        *(b"limit=0", b"limit=101", b"limit=01", b"limit=+1", b"limit=-1", b"limit=1.0"),
        *(b"limit=1_0", b"limit=", b"limit", b"=1", b"limit=%31", b"limit=\xef\xbc\x91"),
        *(b"limit=1&limit=1", b"limit=1&limit=2", b"limit=1&unknown=1", b"unknown=1"),
        *(b"limit=1&", b"&limit=1", b"limit=1&&status=PAID", b"limit=1;status=PAID"),
        *(b"limit=1=1", b"Limit=1", b"lim%69t=1", b"limit =1", b"limit=1\n", b"limit=1#x"),
        *(b"status=paid", b"status=PAI", b"status=", b"status=__class__"),
        *(b"before=18446744073709551616", b"before=" + b"9" * 500),
        *(b"user=a+b", b"user=a%20b", b"user=\xc3\xa9", b"user=" + b"a" * 65, b"user=a/b"),
        *(b"any=a+b", b"any=a%20b", b"any=\xc3\xa9", b"any=a/b", b"any=a;b", b"any=a=b", b"any="),
        b"any=" + b"a" * MAX_BYTES,
    ],
)
def test_what_is_not(query: bytes) -> None:
    assert parsed_query(query, PARAMETERS) is None


def test_who_declares_nothing_takes_no_query() -> None:
    assert parsed_query(b"limit=1", {}) is None


names = st.sampled_from(["any", "any", "limit", "before", "status", "user", "x", "lim%69t", ""])
texts = st.one_of(
    st.integers(-1, 130).map(str),
    st.sampled_from(["PAID", "", "%50AID", "a+b", "a=b", "é", "0x1", "١"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
pairs = st.tuples(names, st.sampled_from(["=", "=", "=", "", "=="]), texts).map("".join)


@given(parts=st.lists(pairs, max_size=4), apart=st.sampled_from(["&", "&", "&&", ";"]))
def test_it_never_reads_what_django_reads_otherwise(parts: list[str], apart: str) -> None:
    query = apart.join(parts).encode()
    found = parsed_query(query, PARAMETERS)
    if found is not None:
        djangos = QueryDict(query)
        assert {name: [str(value)] for name, value in found.items()} == dict(djangos.lists())
