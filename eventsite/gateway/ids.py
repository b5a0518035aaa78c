"""The ids of a request: taken from its headers or made.

Format of traceparent: W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import uuid_utils

from outbox.envelope import TraceContext

__all__ = ["RequestIds", "request_ids"]

_TRACEPARENT = re.compile(
    rb"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})$"
)
_PRINTABLE = re.compile(rb"^[\x21-\x7e]{1,128}$")


@dataclass(frozen=True, slots=True)
class RequestIds:
    """`request_id` is only answered back; `trace` travels on. One sent alone stands for both."""

    request_id: str
    trace: TraceContext


def request_ids(headers: Iterable[tuple[bytes, bytes]]) -> RequestIds:
    """The caller's ids, with a span of our own. What is malformed is replaced, never passed on."""
    found = {name: value for name, value in headers if name in _WANTED}
    request_id = _printable(found.get(b"x-request-id", b""))
    correlation_id = _printable(found.get(b"x-correlation-id", b"")) or request_id or _new_id()
    trace = TraceContext(_traceparent(found.get(b"traceparent", b"")), correlation_id)
    return RequestIds(request_id or correlation_id, trace)


def _printable(value: bytes) -> str:
    return value.decode() if _PRINTABLE.match(value) else ""


def _new_id() -> str:
    return str(uuid_utils.uuid7())


_WANTED = frozenset({b"x-correlation-id", b"x-request-id", b"traceparent"})


def _traceparent(received: bytes) -> str:
    match = _TRACEPARENT.match(received)
    trace_id = match[1].decode() if match else secrets.token_hex(16)
    flags = match[2].decode() if match else "01"
    return f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"
