"""The words of the backbone: what an event is, and how it is written on the wire.

Plain Python: no Django, no Kafka client. Headers follow the CloudEvents 1.0 Kafka protocol
binding in binary content mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import msgspec

__all__ = [
    "NO_TRACE",
    "TRACEPARENT",
    "EventEnvelope",
    "ReceivedMessage",
    "TraceContext",
    "correlation_fields",
    "event_fields",
    "fits",
    "from_column",
    "json_number",
    "kafka_headers",
    "message_bytes",
    "parse_id",
    "rfc3339",
    "rfc3339_of",
    "span_fields",
    "to_column",
]

CONTENT_TYPE = "application/json"
# A longer header of a message is as if absent: what we take from headers is an id or a short word,
# and stands in log lines and columns.
HEADER_LIMIT = 255
# The nine headers with the longest values we write, and the record's own framing.
HEADER_BYTES = 1024


# These two are made tens of thousands of times a second: a Struct costs a fifth of a dataclass.
class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """Ids that travel from the request to the last effect (guarantees.md#r20)."""

    traceparent: str = ""
    correlation_id: str = ""


NO_TRACE = TraceContext()

# Version, trace, span, flags; more may follow in versions to come
# (https://www.w3.org/TR/trace-context/).
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class EventEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way: the row of the outbox and the message in Kafka say the same."""

    event_id: UUID
    type: str
    topic: str
    key: str
    source: str
    time: str
    payload: str
    trace: TraceContext = NO_TRACE
    headers: tuple[tuple[str, str], ...] = ()


_SPECVERSION = ("ce_specversion", "1.0")
_CONTENT_TYPE = ("content-type", CONTENT_TYPE)


def kafka_headers(
    *,
    event_id: str,
    type_: str,
    source: str,
    time: str,
    key: str,
    traceparent: str,
    correlation_id: str,
) -> list[tuple[str, str | bytes]]:
    """The message's headers, in the order of the contract; the client writes them as UTF-8."""
    return [
        _SPECVERSION,
        ("ce_id", event_id),
        ("ce_type", type_),
        ("ce_source", source),
        ("ce_time", time),
        ("ce_subject", key),
        ("traceparent", traceparent),
        ("correlation_id", correlation_id),
        _CONTENT_TYPE,
    ]


def fits(key: str, payload: str, max_message_bytes: int) -> bool:
    """Whether `message_bytes` is at most so many; counts bytes only where characters leave it open."""
    if _UTF8_AT_MOST * (2 * len(key) + len(payload)) + HEADER_BYTES <= max_message_bytes:
        return True
    return message_bytes(key, payload) <= max_message_bytes


_UTF8_AT_MOST = 4  # bytes of a character


def message_bytes(key: str, payload: str) -> int:
    """Upper bound of what a message takes of its topic's limit: key (twice: it is also the
    subject), value and headers, in bytes."""
    return 2 * len(key.encode()) + len(payload.encode()) + HEADER_BYTES


class ReceivedMessage(NamedTuple):
    """One message as Kafka holds it. `size`: bytes of key, value and headers."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    size: int

    @property
    def event_id(self) -> str:
        """Text of the ce_id header, empty where there is none."""
        return (dict(self.headers).get("ce_id") or b"").decode("utf-8", "replace")

    def envelope(self, topic_id: UUID) -> EventEnvelope:
        """The event that it carries; never fails, whoever wrote it.

        A message without a valid `ce_id` gets uuid5(topic_id, partition, offset): the same message
        has the same id at every reading (guarantees.md#r9). Bytes that are not UTF-8 are kept as
        surrogate escapes, which no JSON decoder takes: such an event fails in its handler. A header
        of more than HEADER_LIMIT bytes, or that is no printable UTF-8, is as if absent."""
        found = dict(self.headers)
        return EventEnvelope(
            event_id=_event_id(_text(found, "ce_id"), topic_id, self.partition, self.offset),
            type=_text(found, "ce_type"),
            topic=self.topic,
            key=(self.key or b"").decode("utf-8", "surrogateescape"),
            source=_text(found, "ce_source"),
            time=_text(found, "ce_time"),
            payload=(self.value or b"").decode("utf-8", "surrogateescape"),
            trace=TraceContext(_text(found, "traceparent"), _text(found, "correlation_id")),
        )


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    raw = headers.get(name)
    if not raw or len(raw) > HEADER_LIMIT:
        return ""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _event_id(text: str, topic_id: UUID, partition: int, offset: int) -> UUID:
    try:
        # A third of the cost of UUID(text), which knows more forms.
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        pass
    try:
        return UUID(text)
    except ValueError:
        return uuid5(topic_id, f"{partition}/{offset}")


def event_fields(trace: TraceContext) -> dict[str, str]:
    """Fields of a log line about one event: its three ids. One of another producer may have none of
    its own; the line then has the trace of the step that wrote it."""
    return {"correlation_id": trace.correlation_id, **span_fields(trace.traceparent)}


def span_fields(traceparent: str) -> dict[str, str]:
    """Fields of a log line that name a span; none if this is no traceparent."""
    match = TRACEPARENT.fullmatch(traceparent)
    return {"trace_id": match[1], "span_id": match[2]} if match else {}


_IDS_OF_A_LINE = 100


def correlation_fields(ids: Iterable[str]) -> dict[str, Any]:
    """Fields of a log line about several events: their correlation ids, each once, sorted. Of more
    than a hundred only the first are named: the others' events are found in the database."""
    different = sorted(set(ids) - {""})
    fields: dict[str, Any] = {"correlation_ids": different[:_IDS_OF_A_LINE]}
    if len(different) > _IDS_OF_A_LINE:
        fields["correlation_ids_left_out"] = len(different) - _IDS_OF_A_LINE
    return fields


_ESCAPED = "\\base64:"


def to_column(text: str) -> str:
    """Text as PostgreSQL can hold it: what has a NUL or bytes that are no UTF-8 becomes base64.

    The same text always becomes the same column, and no two texts share one.
    """
    data = text.encode("utf-8", "surrogateescape")
    is_utf8 = data.decode(errors="ignore") == text
    if is_utf8 and "\0" not in text and not text.startswith(_ESCAPED):
        return text
    return _ESCAPED + base64.b64encode(data).decode()


def from_column(column: str) -> str:
    """The inverse of to_column."""
    if not column.startswith(_ESCAPED):
        return column
    return base64.b64decode(column[len(_ESCAPED) :]).decode("utf-8", "surrogateescape")


_encode = msgspec.json.Encoder().encode
_TO_SECONDS = len('"2026-03-11T22:00:00')
_TO_MILLISECONDS = len('"2026-03-11T22:00:00.000')


def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds and Z, for example 2026-03-11T22:00:00.000Z."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    text = _encode(moment).decode()  # a quarter of the cost of isoformat()
    if moment.microsecond:
        return f"{text[1:_TO_MILLISECONDS]}Z"
    return f"{text[1:_TO_SECONDS]}.000Z"


def rfc3339_of(column: str) -> str:
    """SQL that writes a column so; a database does it for a tenth of the cost."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


def json_number(value: Decimal) -> Decimal:
    """The same number without trailing zeros or exponent: what is written is 70, not 70.00 or 7E+1."""
    whole = value.to_integral_value()
    return whole.quantize(Decimal(1)) if value == whole else value.normalize()


def parse_id(text: str) -> UUID | None:
    """The UUID that `text` is, or None."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None
