"""The wire: what is written is what is read, whoever wrote it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID, uuid4, uuid5

import pytest
from kombu.utils import json as kombu_json

from outbox.envelope import (
    EventEnvelope,
    ReceivedMessage,
    TraceContext,
    fits,
    json_number,
    kafka_headers,
    message_bytes,
    rfc3339,
)
from outbox.inbox.chunk import Chunk, TaskChunk

TOPIC_ID = UUID("11111111-2222-3333-4444-555555555555")
ENVELOPE = EventEnvelope(
    event_id=UUID("01890000-0000-7000-8000-000000000001"),
    type="ORDER_CREATED",
    topic="order-events",
    key="k-ä",
    source="/orders",
    time="2026-03-11T22:00:00.000Z",
    payload='{"a":"ö"}',
    trace=TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "c-1"),
)


HEADERS = kafka_headers(
    event_id=str(ENVELOPE.event_id),
    type_=ENVELOPE.type,
    source=ENVELOPE.source,
    time=ENVELOPE.time,
    key=ENVELOPE.key,
    traceparent=ENVELOPE.trace.traceparent,
    correlation_id=ENVELOPE.trace.correlation_id,
)


def read(key: bytes, value: bytes, headers: list[tuple[str, bytes | None]]) -> EventEnvelope:
    return ReceivedMessage("order-events", 3, 7, key, value, headers, 0).envelope(TOPIC_ID)


def test_an_envelope_survives_the_message() -> None:
    headers: list[tuple[str, bytes | None]] = [(name, str(text).encode()) for name, text in HEADERS]
    assert read("k-ä".encode(), '{"a":"ö"}'.encode(), headers) == ENVELOPE


def test_the_headers_are_those_of_the_contract() -> None:
    assert dict(HEADERS) == {
        "ce_specversion": "1.0",
        "ce_id": "01890000-0000-7000-8000-000000000001",
        "ce_type": "ORDER_CREATED",
        "ce_source": "/orders",
        "ce_time": "2026-03-11T22:00:00.000Z",
        "ce_subject": "k-ä",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "correlation_id": "c-1",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("ce_id", [b"", b"17", b"\xff\xfe", b"not-a-uuid"])
def test_a_message_without_a_valid_id_has_one_that_never_changes(ce_id: bytes) -> None:
    once, twice = (read(b"k", b"{}", [("ce_id", ce_id)]) for _ in range(2))
    assert once.event_id == twice.event_id == uuid5(TOPIC_ID, "3/7")


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 256,
        b"x" * 200_000,
        b"\xff\xfe",
        b"c-1\x00",
        b"c-1\n",
        b"\x1b[31m",
        "c\u2028".encode(),
    ],
)
def test_a_header_that_is_too_long_or_not_printable_is_as_if_absent(value: bytes) -> None:
    names = ("ce_id", "ce_type", "ce_source", "ce_time", "traceparent", "correlation_id")
    assert read(b"k", b"{}", [(name, value) for name in names]) == read(b"k", b"{}", [])


def test_a_header_of_255_bytes_is_taken() -> None:
    text = "ä" * 127 + "x"
    assert read(b"k", b"{}", [("correlation_id", text.encode())]).trace.correlation_id == text


def test_a_message_without_headers_or_value_is_read() -> None:
    envelope = read(b"", b"", [])
    assert (envelope.type, envelope.key, envelope.payload) == ("", "", "")


def test_bytes_that_are_no_text_survive_the_way_to_the_worker() -> None:
    envelope = read(b"\xff", b"\x80{", [("ce_id", str(uuid4()).encode())])
    chunk = Chunk("t", TOPIC_ID, 0, 7, 8, ((7, envelope),))
    carried = TaskChunk(kombu_json.loads(kombu_json.dumps(chunk.to_task()).encode()))
    [(_, arrived)] = Chunk.from_task(carried).events
    assert arrived.payload.encode("utf-8", "surrogateescape") == b"\x80{"
    assert arrived.key.encode("utf-8", "surrogateescape") == b"\xff"


def test_a_chunk_survives_the_way_to_the_worker() -> None:
    chunk = Chunk("order-events", TOPIC_ID, 3, 5, 9, ((7, ENVELOPE),))
    assert Chunk.from_task(TaskChunk(kombu_json.loads(kombu_json.dumps(chunk.to_task())))) == chunk


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("70.00", "70"),
        ("42.50", "42.5"),
        ("0.00", "0"),
        ("7E+1", "70"),
        ("99999999999999999.99", "99999999999999999.99"),
        ("100", "100"),
    ],
)
def test_money_is_written_without_trailing_zeros_or_exponent(value: str, text: str) -> None:
    assert str(json_number(Decimal(value))) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (
            datetime(2026, 3, 11, 23, 0, 0, 123999, tzinfo=timezone(timedelta(hours=1))),
            "2026-03-11T22:00:00.123Z",
        ),
        (datetime(2026, 3, 11, tzinfo=UTC), "2026-03-11T00:00:00.000Z"),
        (datetime(2026, 3, 11, 22, 0, 0, 1, tzinfo=UTC), "2026-03-11T22:00:00.000Z"),
        (datetime(2026, 3, 11, 22, 0, 0, 120000, tzinfo=UTC), "2026-03-11T22:00:00.120Z"),
        (datetime(1, 1, 1, 0, 0, 0, 999999, tzinfo=UTC), "0001-01-01T00:00:00.999Z"),
    ],
)
def test_times_are_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text


def test_the_size_bound_covers_what_is_sent() -> None:
    sent = sum(len(name) + len(value) for name, value in HEADERS)
    assert message_bytes(ENVELOPE.key, ENVELOPE.payload) >= (
        len(ENVELOPE.key.encode()) + len(ENVELOPE.payload.encode()) + sent
    )


@pytest.mark.parametrize("character", ["a", "ü", "€", "😀"])
@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001])
def test_what_fits_is_what_its_bytes_say(character: str, length: int) -> None:
    key, payload = character * 3, character * length
    size = message_bytes(key, payload)
    assert fits(key, payload, size)
    assert not fits(key, payload, size - 1)
