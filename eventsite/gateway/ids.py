"""The ids of a request: taken from its headers or made.

Format of traceparent: W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

import uuid_utils

from outbox.envelope import TraceContext

__all__ = ["request_ids"]

_TRACEPARENT = re.compile(
    rb"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})$"
)
_PRINTABLE = re.compile(rb"^[\x21-\x7e]{1,128}$")


def request_ids(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
    """The caller's correlation id (X-Correlation-ID before X-Request-ID) and trace, with a span of
    our own. What is malformed is replaced, never passed on."""
    found = {name: value for name, value in headers if name in _WANTED}
    correlation = found.get(b"x-correlation-id") or found.get(b"x-request-id") or b""
    if not _PRINTABLE.match(correlation):
        correlation = str(uuid_utils.uuid7()).encode()
    return TraceContext(_traceparent(found.get(b"traceparent", b"")), correlation.decode())


_WANTED = frozenset({b"x-correlation-id", b"x-request-id", b"traceparent"})


def _traceparent(received: bytes) -> str:
    match = _TRACEPARENT.match(received)
    trace_id = match[1].decode() if match else secrets.token_hex(16)
    flags = match[2].decode() if match else "01"
    return f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"
