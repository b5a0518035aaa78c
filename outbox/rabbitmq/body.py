"""What a message says: `{"event_id", "correlation_id"?, "payload"}`, the payload never decoded."""

from __future__ import annotations

import json
import re
from collections import Counter

import msgspec

__all__ = ["EVENT_ID_LIMIT", "MessageBody", "Unreadable", "read_body"]

EVENT_ID_LIMIT = 255  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FIELDS = (b'"event_id"', b'"payload"', b'"correlation_id"')


class Unreadable(ValueError):
    """The message cannot be relayed; its text says why and names the field."""


class MessageBody(msgspec.Struct, gc=False):
    """`payload` is a view into the body: the value's bytes without the whitespace around it."""

    event_id: str
    payload: msgspec.Raw
    correlation_id: str | None = None


_decode = msgspec.json.Decoder(MessageBody).decode


def read_body(data: bytes) -> MessageBody:
    """Raises Unreadable."""
    try:
        if not data.isascii():
            data.decode()
        body = _decode(data)
    except UnicodeDecodeError as error:
        raise Unreadable(f"body: not UTF-8 at byte {error.start}") from None
    except msgspec.ValidationError as error:
        raise Unreadable(f"body: {error}") from None
    except msgspec.DecodeError as error:
        raise Unreadable(f"body: not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("body: nested too deeply for the parser") from None
    event_id = body.event_id
    if not event_id:
        raise Unreadable("event_id: empty")
    if len(event_id) > EVENT_ID_LIMIT:
        raise Unreadable(f"event_id: longer than {EVENT_ID_LIMIT} characters")
    if not event_id.isprintable() and _CONTROL.search(event_id):
        raise Unreadable("event_id: has a control character")
    if _may_repeat(data, body):
        _refuse_repeats(data)
    return body


def _may_repeat(data: bytes, body: MessageBody) -> bool:
    """Whether a field may be given twice, of which the parser silently takes the last.

    It may not if each name is found once outside the payload, and no name is written with escapes.
    """
    payload = bytes(body.payload)
    if data.count(b"\\") != payload.count(b"\\"):
        return True
    return any(data.count(name) - payload.count(name) > 1 for name in _FIELDS)


def _refuse_repeats(data: bytes) -> None:
    """Count the names at the top level: the outermost object is the last that is read. Numbers may
    have any number of digits."""
    try:
        found = json.loads(
            data, object_pairs_hook=_names, parse_int=str, parse_float=str, strict=False
        )
    except RecursionError:
        raise Unreadable("body: nested too deeply for the parser") from None
    names = Counter(found)
    for name in ("event_id", "payload", "correlation_id"):
        if names[name] > 1:
            raise Unreadable(f"{name}: given {names[name]} times")


def _names(pairs: list[tuple[str, object]]) -> list[str]:
    return [name for name, _ in pairs]
