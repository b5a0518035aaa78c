"""What a body says: each bad one is named by its field, each payload is the bytes that came."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.relay.messages import BAD, Message
from outbox.rabbitmq.body import EVENT_ID_LIMIT, Unreadable, read_body

READABLE = {name: message for name, message in BAD.items() if message.payload is not None}
# These are told from the others by more than the body.
UNREADABLE = {
    name: message
    for name, message in BAD.items()
    if message.payload is None and name not in ("gzip", "5-MB")
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
spaces = st.text(" \t\n\r", max_size=3)
event_ids = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=EVENT_ID_LIMIT
)
# Names that look like ours but for a letter, and ours in the wrong place.
fields = st.dictionaries(texts | st.sampled_from(["event-id", "payloads", "correlation"]), values)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_bad_body_is_refused_and_its_field_named(name: str) -> None:
    with pytest.raises(Unreadable, match=UNREADABLE[name].names):
        read_body(UNREADABLE[name].body)


@pytest.mark.parametrize("name", READABLE)
def test_a_payload_stays_the_bytes_it_came_as(name: str) -> None:
    message: Message = READABLE[name]
    body = read_body(message.body)
    assert (body.event_id, bytes(body.payload)) == (message.event_id, message.payload)


@given(event_ids, values, fields, st.booleans(), st.randoms(use_true_random=False), spaces)
def test_any_payload_in_any_place(
    event_id: str, payload: object, others: dict[str, object], ascii_: bool, order: object, gap: str
) -> None:
    """Written by another encoder, with fields of others around it, which may hold our names."""
    written = json.dumps(payload, ensure_ascii=ascii_, indent=1)
    parts = {"event_id": json.dumps(event_id, ensure_ascii=ascii_), "payload": written}
    parts |= {
        name: json.dumps({"event_id": value, "payload": [value]}, ensure_ascii=ascii_)
        for name, value in others.items()
        if name not in ("event_id", "payload", "correlation_id")
    }
    names = list(parts)
    order.shuffle(names)  # type: ignore[attr-defined]
    text = ",".join(f"{gap}{json.dumps(name)}:{gap}{parts[name]}{gap}" for name in names)
    body = read_body(f"{{{text}}}".encode())
    assert (body.event_id, bytes(body.payload)) == (event_id, written.encode())


@given(st.sampled_from(["event_id", "payload", "correlation_id"]), st.integers(0, 3))
def test_a_field_that_stands_there_twice_however_it_is_spelt(name: str, place: int) -> None:
    """Not inside other values: there it is theirs."""
    spelt = name[:place] + f"\\u{ord(name[place]):04x}" + name[place + 1 :]
    fields = [
        '"event_id": "a"',
        '"payload": {"event_id": 1, "payload": 2}',
        '"correlation_id": "c"',
    ]
    fields.insert(place, f'"{spelt}": "again"')
    with pytest.raises(Unreadable, match=f"{name}: given 2 times"):
        read_body(f"{{{', '.join(fields)}}}".encode())


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\x7f", "\x85", "\x9f", "\n"])
def test_control_characters_in_an_id(character: str) -> None:
    with pytest.raises(Unreadable, match="event_id: has a control character"):
        read_body(json.dumps({"event_id": f"a{character}b", "payload": 1}).encode())


def test_the_bounds_of_an_id() -> None:
    longest = "\u00e9" * EVENT_ID_LIMIT
    assert read_body(json.dumps({"event_id": longest, "payload": 1}).encode()).event_id == longest
    with pytest.raises(Unreadable, match="event_id: longer"):
        read_body(json.dumps({"event_id": longest + "x", "payload": 1}).encode())
    assert read_body(b'{"event_id": "soft\\u00adhyphen", "payload": 1}').event_id


def test_half_of_a_surrogate_pair_is_no_json() -> None:
    """Nobody can write it as UTF-8: neither as a key of Kafka nor in a payload for others to read."""
    for body in (
        b'{"event_id": "\\ud800", "payload": 1}',
        b'{"event_id": "h", "payload": "\\ud800"}',
    ):
        with pytest.raises(Unreadable, match="body: not JSON"):
            read_body(body)
