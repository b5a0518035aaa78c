"""Messages as others send them: good ones that are numbered, and every kind of bad one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BAD", "Message", "numbered"]

FILLING = "x" * 60


@dataclass(frozen=True, slots=True)
class Message:
    """`payload`: bytes that Kafka must get; None: it must become a dead letter whose reason names
    `names`. `event_id` is empty where nobody can read one."""

    body: bytes
    event_id: str = ""
    payload: bytes | None = None
    names: str = ""
    headers: Mapping[str, Any] | None = None
    encoding: str | None = None
    bare: bool = field(default=False)  # without any properties


def numbered(prefix: str, number: int) -> Message:
    """The good message with this number; the spaces in its payload must arrive too."""
    event_id = f"{prefix}-{number}"
    payload = f'{{"number": {number},  "filling": "{FILLING}"}}'
    body = f'{{"event_id": {json.dumps(event_id)}, "correlation_id": "{prefix}", "payload": {payload} }}'
    return Message(body.encode(), event_id, payload.encode())


def _relayed(name: str, payload: bytes, **more: Any) -> tuple[str, Message]:
    body = b'{"event_id": "%b",\n "payload": %b }' % (name.encode(), payload)
    return name, Message(body, name, payload, **more)


def _refused(name: str, body: bytes, names: str, **more: Any) -> tuple[str, Message]:
    return name, Message(body, names=names, **more)


# By name; each has an event id of its own, so that they do not repeat each other.
BAD: dict[str, Message] = dict(
    [
        _refused("no-json", b"not json", "body"),
        _refused("empty-body", b"", "body"),
        _refused("array", b"[1, 2]", "body"),
        _refused("string", b'"text"', "body"),
        _refused("trailing", b'{"event_id": "trailing", "payload": 1} x', "body"),
        _refused("bom", b'\xef\xbb\xbf{"event_id": "bom", "payload": 1}', "body"),
        _refused("utf-16", '{"event_id": "utf-16", "payload": 1}'.encode("utf-16"), "body"),
        _refused("invalid-utf-8", b'{"event_id": "utf", "payload": "\xff"}', "UTF-8"),
        _refused("nan", b'{"event_id": "nan", "payload": NaN}', "body"),
        _refused("id-missing", b'{"payload": 1}', "event_id"),
        _refused("id-empty", b'{"event_id": "", "payload": 1}', "event_id"),
        _refused("id-number", b'{"event_id": 7, "payload": 1}', "event_id"),
        _refused("id-null", b'{"event_id": null, "payload": 1}', "event_id"),
        _refused("id-long", b'{"event_id": "%b", "payload": 1}' % (b"i" * 10_000), "event_id"),
        _refused("id-nul", b'{"event_id": "a\\u0000b", "payload": 1}', "event_id"),
        _refused("id-twice", b'{"event_id": "x", "payload": 1, "event_id": "y"}', "event_id"),
        _refused(
            "id-twice-escaped",
            b'{"event_id": "x", "payload": 1, "\\u0065vent_id": "y"}',
            "event_id",
        ),
        _refused("payload-missing", b'{"event_id": "payload-missing"}', "payload"),
        _refused("payload-twice", b'{"event_id": "z", "payload": 1, "payload": 2}', "payload"),
        _refused(
            "correlation-number",
            b'{"event_id": "c", "payload": 1, "correlation_id": 5}',
            "correlation",
        ),
        _refused(
            "correlation-twice",
            b'{"correlation_id": "a", "event_id": "c2", "payload": 1, "correlation_id": "b"}',
            "correlation_id",
        ),
        _refused(
            "gzip", b'{"event_id": "gzip", "payload": 1}', "content-encoding", encoding="gzip"
        ),
        _refused("too-deep", b'{"event_id": "deep", "payload": %b}' % (b"[" * 50_000), "body"),
        _refused(
            "5-MB",
            b'{"event_id": "5-MB", "payload": "%b"}' % (b"p" * 5_000_000),
            "payload",
        ),
        _relayed("payload-null", b"null"),
        _relayed("payload-string", b'"text \\u00e9 \xc3\xa9"'),
        _relayed("payload-1e400", b"1e400"),
        _relayed("payload-nested", b"[" * 500 + b"]" * 500),
        _relayed("payload-duplicate-keys", b'{"a": 1, "a": 2, "event_id": "q", "event_id": "r"}'),
        _relayed("payload-escaped-names", b'{"\\u0065vent_id": 1, "event_id": 2}'),
        _relayed("payload-decimal", b"12345678901234567890.123456789000"),
        _relayed("identity", b"1", encoding="identity"),
        _relayed("bare", b"2", bare=True),
        _relayed(
            "all-headers",
            b"3",
            headers={
                "text": "t\u00e9xt",
                "bytes": b"\xff\x00",
                "true": True,
                "number": 2**40,
                "null": None,
                "list": [1, "two", None, {"three": 3}],
                "table": {"a": {"b": {}}},
                "traceparent": 5,
            },
        ),
    ]
)
