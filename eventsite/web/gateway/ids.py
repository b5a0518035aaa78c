"""The ids of a request: taken from its headers or made.

Format of traceparent: W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import msgspec
import uuid_utils

from outbox.envelope import TraceContext

__all__ = ["RequestIds", "request_ids"]

_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,128}")
# These ids must differ from each other, they are no secret; Python seeds again after a fork.
_random = random.randbytes


class RequestIds(msgspec.Struct, gc=False):
    """`request_id` is only answered back; `trace` travels on. One sent alone stands for both.

    parent_id  the caller's span; empty where the trace begins here
    """

    request_id: str
    trace: TraceContext
    trace_id: str
    span_id: str
    parent_id: str = ""

    @property
    def flags(self) -> str:
        """Two hexadecimal digits; the last bit says that the trace is recorded."""
        return self.trace.traceparent[-2:]

    def named_by(self, *, trace_id: str, span_id: str, flags: str) -> RequestIds:
        """The same request under the ids of a span."""
        trace = TraceContext(f"00-{trace_id}-{span_id}-{flags}", self.trace.correlation_id)
        return RequestIds(self.request_id, trace, trace_id, span_id, self.parent_id)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer carries."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"x-correlation-id", self.trace.correlation_id.encode()),
            (b"traceparent", self.trace.traceparent.encode()),
        ]


def request_ids(found: Mapping[bytes, bytes]) -> RequestIds:
    """The caller's ids, with a span of our own. What is malformed is replaced, never passed on."""
    request_id = _printable(found.get(b"x-request-id"))
    correlation_id = _printable(found.get(b"x-correlation-id")) or request_id
    correlation_id = correlation_id or str(uuid_utils.uuid7())
    made = _random(24).hex()  # for both ids
    trace_id, parent_id, flags = _received(found.get(b"traceparent"))
    trace_id, span_id = trace_id or made[:32], made[32:]
    trace = TraceContext(f"00-{trace_id}-{span_id}-{flags}", correlation_id)
    return RequestIds(request_id or correlation_id, trace, trace_id, span_id, parent_id)


def _printable(value: bytes | None) -> str:
    return value.decode() if value and _PRINTABLE.fullmatch(value) else ""


def _received(traceparent: bytes | None) -> tuple[str, str, str]:
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return (match[1].decode(), match[2].decode(), match[3].decode()) if match else ("", "", "01")
