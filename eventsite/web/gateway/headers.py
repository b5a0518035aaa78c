"""The request headers that the gateway reads, found in one pass, and what makes a head invalid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from eventsite.web.gateway.asgi_types import Scope
from eventsite.web.gateway.refusals import bad_host, invalid_header

__all__ = ["check_head", "wanted_headers"]

# A request with two of them is ambiguous: the next reader may take the other one.
_SINGLE = {
    name.lower().encode(): name
    for name in ("Host", "Authorization", "X-API-Key", "Idempotency-Key", "Content-Type")
}
_WANTED = frozenset(_SINGLE) | {
    b"x-request-id",
    b"x-correlation-id",
    b"traceparent",
    b"x-forwarded-for",
    b"origin",  # of a WebSocket
    b"content-length",
    b"transfer-encoding",
}
# uri-host [":" port], RFC 9110 (7.2) and RFC 3986 (3.2.2).
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?"
)


def wanted_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bytes]:
    """Values by name, and the name of a header that may be given once and was given twice, else b"".

    Of a repeated one all values, joined as RFC 9110 (5.3) says; ids that are joined are malformed.
    """
    found: dict[bytes, bytes] = {}
    twice = b""
    for name, value in headers:
        if name in _WANTED:
            if name in found:
                found[name] += b", " + value
                twice = name if name in _SINGLE else twice
            else:
                found[name] = value
    return found, twice


def check_head(scope: Scope, found: Mapping[bytes, bytes], twice: bytes) -> None:
    """Raises Refused (400) for a header that is given twice, and for a Host header that is not
    valid, or missing in HTTP/1.1 (RFC 9112, 3.2)."""
    if twice:
        name = _SINGLE[twice]
        message = f"The request has more than one {name} header."
        raise invalid_header(name, message, "Must be given once.")
    host = found.get(b"host")
    if host is None:
        if scope.get("http_version") == "1.1":
            raise bad_host("The request has no Host header.")
    elif not _is_host(host):
        raise bad_host("The Host header is empty or not valid.")


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None
