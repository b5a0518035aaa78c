"""AMQP properties as bytes: nothing of a message's headers is lost, and none of them ends the relay.

pika decodes the header table of every delivery. A time in milliseconds or an unknown type raises in
the middle of its reading, the connection is gone, the message comes again, for ever; a
double loses its fraction. So properties stay the bytes they came as, and the few that matter are
looked up in them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from pika import data, spec
from pika.exceptions import AMQPError

__all__ = ["Properties", "keep_properties_as_bytes"]

_U32 = struct.Struct(">I")
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = (
    spec.BasicProperties.FLAG_CONTENT_TYPE,
    spec.BasicProperties.FLAG_CONTENT_ENCODING,
    spec.BasicProperties.FLAG_HEADERS,
)
_DELIVERY_MODE, _EXPIRATION, _USER_ID = (
    spec.BasicProperties.FLAG_DELIVERY_MODE,
    spec.BasicProperties.FLAG_EXPIRATION,
    spec.BasicProperties.FLAG_USER_ID,
)
# What follows the headers, in its order, and its bytes; 0: a short string.
_BEHIND_HEADERS = (
    (_DELIVERY_MODE, 1),
    (spec.BasicProperties.FLAG_PRIORITY, 1),
    (spec.BasicProperties.FLAG_CORRELATION_ID, 0),
    (spec.BasicProperties.FLAG_REPLY_TO, 0),
    (_EXPIRATION, 0),
    (spec.BasicProperties.FLAG_MESSAGE_ID, 0),
    (spec.BasicProperties.FLAG_TIMESTAMP, 8),
    (spec.BasicProperties.FLAG_TYPE, 0),
    (_USER_ID, 0),
    (spec.BasicProperties.FLAG_APP_ID, 0),
    (spec.BasicProperties.FLAG_CLUSTER_ID, 0),
)
# Bytes of a value by its type (https://www.rabbitmq.com/amqp-0-9-1-errata); the others begin with
# their length.
_FIXED = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"sUu", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"LldT", 8),
    ord("D"): 5,
    ord("V"): 0,
}
_COUNTED = frozenset(b"SxAF")
_INTEGERS = {"b": ">b", "B": ">B", "s": ">h", "U": ">h", "u": ">H", "I": ">i", "i": ">I"} | {
    "L": ">q",
    "l": ">q",
}
_FLOATS = {"f": ">f", "d": ">d"}
_DEPTH = 10  # of tables within tables that are shown


class Properties(spec.BasicProperties):  # type: ignore[misc]
    """The properties of a delivery; `raw` is how they came. Every other attribute is unset."""

    raw: bytes = b"\0\0"

    def __init__(self) -> None:
        """Sets nothing: the base class would set thirteen attributes for each message."""

    def decode(self, encoded: bytes, offset: int = 0) -> Properties:
        """Called by pika for the content header of each delivery."""
        self.raw = encoded[offset:]
        return self

    def encode(self) -> list[bytes]:
        """Called by pika when it is published again."""
        return [self.raw]

    @property
    def is_plain(self) -> bool:
        """Neither an encoding nor headers: there is nothing to look up."""
        return not self._flags & (_CONTENT_ENCODING | _HEADERS)

    @property
    def encoding(self) -> str:
        """content-encoding, empty if there is none."""
        at = 2
        if not self._flags & _CONTENT_ENCODING:
            return ""
        if self._flags & _CONTENT_TYPE:
            at += 1 + self.raw[at]
        return self.raw[at + 1 : at + 1 + self.raw[at]].decode("utf-8", "replace")

    def text(self, name: str) -> str:
        """A header that is text; empty if it is absent or anything else."""
        for found, kind, value in self._entries():
            if found == name.encode() and kind in "Sx":
                return value[4:].decode("utf-8", "replace")
        return ""

    def number(self, name: str) -> int:
        """A header that is a whole number; 0 if it is absent or anything else."""
        for found, kind, value in self._entries():
            if found == name.encode() and kind in _INTEGERS:
                return int(struct.unpack(_INTEGERS[kind], value)[0])
        return 0

    def headers_shown(self) -> dict[str, Any]:
        """All headers for people to read: what cannot be decoded is shown as bytes."""
        return _table_shown(self._table_bytes())

    def with_headers(self, added: Mapping[str, str | int]) -> Properties:
        """A copy that is persistent and has these headers besides; they replace their namesakes."""
        kept = [entry for entry in self._raw_entries() if entry[0].decode("latin-1") not in added]
        return self._rebuilt(b"".join(entry[1] for entry in kept) + _encoded(added))

    def without_headers(self, *names: str, beginning: str = "") -> Properties:
        """A persistent copy without these headers, and, where `beginning` says something, those whose
        names begin so."""
        left_out = {name.encode() for name in names}
        kept = [
            entry
            for entry in self._raw_entries()
            if entry[0] not in left_out
            and not (beginning and entry[0].startswith(beginning.encode()))
        ]
        return self._rebuilt(b"".join(entry[1] for entry in kept))

    def only(self, added: Mapping[str, str | int]) -> Properties:
        """Nothing but these headers, for what has no room beside them."""
        return Properties().with_headers(added)

    @property
    def _flags(self) -> int:
        return int.from_bytes(self.raw[:2], "big")

    def _rebuilt(self, table: bytes) -> Properties:
        """With this header table, persistent, and without what would end the copy: its expiration,
        and a user-id, which a broker takes from that user alone."""
        start, end = self._table()
        flags = (self._flags | _HEADERS | _DELIVERY_MODE) & ~(_EXPIRATION | _USER_ID)
        after, at = [b"\x02"], end
        for flag, size in _BEHIND_HEADERS:
            if self._flags & flag:
                begin, at = at, at + (size or 1 + self.raw[at])
                if flags & flag and flag != _DELIVERY_MODE:
                    after.append(self.raw[begin:at])
        made = Properties()
        made.raw = b"".join(
            (
                flags.to_bytes(2, "big"),
                self.raw[2:start],
                _U32.pack(len(table)),
                table,
                *after,
            )
        )
        return made

    def _table(self) -> tuple[int, int]:
        """Where the header table begins and ends, its length included; equal where there is none."""
        at = 2
        for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
            if self._flags & flag:
                at += 1 + self.raw[at]
        if not self._flags & _HEADERS:
            return at, at
        return at, at + 4 + int(_U32.unpack_from(self.raw, at)[0])

    def _entries(self) -> Iterator[tuple[bytes, str, bytes]]:
        """Name, type and bytes of each header, up to the first of a type that nobody knows."""
        for name, entry in self._raw_entries():
            at = 1 + len(name)
            yield name, chr(entry[at]), entry[at + 1 :]

    def _raw_entries(self) -> Iterator[tuple[bytes, bytes]]:
        return _entries_of(self._table_bytes())

    def _table_bytes(self) -> bytes:
        """The header table without its length."""
        start, end = self._table()
        return self.raw[start + 4 : end]


def _entries_of(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each entry, the name among them."""
    at = 0
    while at < len(table):
        begin, name = at, table[at + 1 : at + 1 + table[at]]
        end = _end_of_value(table, at + 1 + len(name))
        if end is None:
            return
        at = end
        yield name, table[begin:at]


def _end_of_value(encoded: bytes, at: int) -> int | None:
    """Where the value ends whose type stands at `at`; None: nobody knows the type, or it is cut off."""
    kind = encoded[at] if at < len(encoded) else 0
    if kind in _FIXED:
        end = at + 1 + _FIXED[kind]
    elif kind in _COUNTED and at + 5 <= len(encoded):
        end = at + 5 + int(_U32.unpack_from(encoded, at + 1)[0])
    else:
        return None
    return end if end <= len(encoded) else None


def _table_shown(table: bytes, depth: int = 0) -> dict[str, Any]:
    return {
        name.decode("utf-8", "backslashreplace"): _value_shown(entry[1 + len(name) :], depth)
        for name, entry in _entries_of(table)
    }


def _value_shown(encoded: bytes, depth: int) -> Any:
    """A value with its type. pika would make whole numbers of floats and doubles, and 3L of a long 3."""
    kind, value = chr(encoded[0]), encoded[1:]
    if kind in "FA":
        if depth == _DEPTH:
            return "…"
        return (_table_shown if kind == "F" else _array_shown)(value[4:], depth + 1)
    try:
        if kind in _FLOATS:
            [number] = struct.unpack(_FLOATS[kind], value)
            if math.isfinite(number):
                return number
        elif kind in _INTEGERS:
            return int(struct.unpack(_INTEGERS[kind], value)[0])
        else:
            return data.decode_value(encoded, 0)[0]
    except (AMQPError, ValueError, OverflowError, OSError, struct.error):
        pass
    return f"{kind}:{value.hex()}"


def _array_shown(encoded: bytes, depth: int) -> list[Any]:
    values, at = [], 0
    while at < len(encoded) and (end := _end_of_value(encoded, at)) is not None:
        values.append(_value_shown(encoded[at:end], depth))
        at = end
    return values


def _encoded(table: Mapping[str, str | int]) -> bytes:
    pieces: list[bytes] = []
    data.encode_table(pieces, dict(table))
    return b"".join(pieces)[4:]


def keep_properties_as_bytes() -> None:
    """Have pika make these of every content header that it reads in this process."""
    spec.props[spec.BasicProperties.INDEX] = Properties
