"""The request headers that the gateway reads, found in one pass."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["wanted_headers"]

_WANTED = frozenset(
    {
        b"x-request-id",
        b"x-correlation-id",
        b"traceparent",
        b"authorization",
        b"x-api-key",
        b"x-forwarded-for",
        b"content-length",
        b"transfer-encoding",
    }
)


def wanted_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Values by name; of a repeated one all values, joined as RFC 9110 (5.3) says."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            found[name] = found[name] + b", " + value if name in found else value
    return found
