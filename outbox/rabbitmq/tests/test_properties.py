"""Properties stay the bytes that came; what pika itself would choke on does no harm."""

from __future__ import annotations

import struct
from typing import Any

import pika
from hypothesis import given
from hypothesis import strategies as st
from pika import spec

from outbox.rabbitmq.properties import Properties

short = st.text(max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
headers = st.dictionaries(
    short,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    ),
    max_size=6,
)
properties = st.builds(
    pika.BasicProperties,
    content_type=st.none() | short,
    content_encoding=st.none() | short,
    headers=st.none() | headers,
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short,
    reply_to=st.none() | short,
    expiration=st.none() | short,
    message_id=st.none() | short,
    timestamp=st.none() | st.integers(0, 2**63),
    type=st.none() | short,
    user_id=st.none() | short,
    app_id=st.none() | short,
)


def received(given: spec.BasicProperties) -> Properties:
    return Properties().decode(b"".join(given.encode()))


def as_pika(own: Properties) -> spec.BasicProperties:
    return spec.BasicProperties().decode(b"".join(own.encode()))


def fields(of: spec.BasicProperties, *without: str) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if name not in without}


@given(properties)
def test_sent_again_as_it_came(given: spec.BasicProperties) -> None:
    assert vars(as_pika(received(given))) == vars(as_pika_of(given))


def as_pika_of(given: spec.BasicProperties) -> spec.BasicProperties:
    return spec.BasicProperties().decode(b"".join(given.encode()))


@given(properties)
def test_headers_are_added_and_nothing_else_changes(given: spec.BasicProperties) -> None:
    """But for what would end the copy: it is persistent, never expires, and is nobody's."""
    made = as_pika(received(given).with_headers({"x-relay-id": "1", "x-relay-number": 2}))
    before = as_pika_of(given)
    changed = ("headers", "delivery_mode", "expiration", "user_id")
    assert fields(made, *changed) == fields(before, *changed)
    assert made.headers == {**(before.headers or {}), "x-relay-id": "1", "x-relay-number": 2}
    assert (made.delivery_mode, made.expiration, made.user_id) == (2, None, None)


@given(properties)
def test_added_and_taken_away_again(given: spec.BasicProperties) -> None:
    added = received(given).with_headers({"x-relay-id": "1"})
    before = {
        name: value
        for name, value in (as_pika_of(given).headers or {}).items()
        if name != "CC" and not name.startswith("x-relay-")
    }
    assert as_pika(added.without_headers("CC", beginning="x-relay-")).headers == before


@given(properties)
def test_what_is_looked_up(given: spec.BasicProperties) -> None:
    own = received(given)
    assert own.encoding == (given.content_encoding or "")
    for name, value in (given.headers or {}).items():
        assert own.number(name) == (value if type(value) is int else 0)
        if type(value) is str:
            assert own.text(name) == value


# What pika cannot decode: each would cost it its connection, again and again.
UNDECODABLE = {
    b"d": struct.pack(">d", float("nan")),
    b"f": struct.pack(">f", float("inf")),
    b"T": struct.pack(">Q", 1_800_000_000_000),  # milliseconds
    b"?": b"",
}


def with_table(*entries: tuple[bytes, bytes, bytes]) -> Properties:
    table = b"".join(bytes([len(name)]) + name + kind + value for name, kind, value in entries)
    flags = spec.BasicProperties.FLAG_HEADERS.to_bytes(2, "big")
    return Properties().decode(flags + struct.pack(">I", len(table)) + table)


def test_headers_that_pika_cannot_decode() -> None:
    traceparent = (b"traceparent", b"S", struct.pack(">I", 3) + b"abc")
    for kind, value in UNDECODABLE.items():
        own = with_table(traceparent, (b"odd", kind, value), (b"n", b"l", struct.pack(">q", 7)))
        assert own.text("traceparent") == "abc"
        assert own.number("n") == (7 if kind != b"?" else 0)
        assert own.headers_shown()["traceparent"] == "abc"
        assert own.with_headers({"a": "b"}).text("a") == "b"


def test_numbers_are_shown_as_they_are() -> None:
    """pika reads a double as a whole number."""
    half, quarter = b"d" + struct.pack(">d", 0.5), b"f" + struct.pack(">f", 0.25)
    pair = half + quarter
    own = with_table(
        (b"share", half[:1], half[1:]),
        (b"list", b"A", struct.pack(">I", len(pair)) + pair),
        (b"table", b"F", struct.pack(">I", 2 + len(quarter)) + b"\x01q" + quarter),
        (b"odd", b"d", struct.pack(">d", float("nan"))),
        (b"long", b"l", struct.pack(">q", 3)),
    )
    assert own.headers_shown() == {
        "share": 0.5,
        "list": [0.5, 0.25],
        "table": {"q": 0.25},
        "odd": "d:7ff8000000000000",
        "long": 3,
    }


def test_tables_within_tables_have_an_end() -> None:
    table = b""
    for _ in range(5_000):
        table = b"\x01tF" + struct.pack(">I", len(table)) + table
    own = with_table((b"t", b"F", struct.pack(">I", len(table)) + table))
    assert "…" in str(own.headers_shown())


def test_a_table_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    own = with_table((b"n", b"l", struct.pack(">q", 7)), (b"s", b"S", struct.pack(">I", 1000)))
    assert (own.number("n"), own.text("s")) == (7, "")
