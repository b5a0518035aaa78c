"""What a handshake must have beside what every request must: whose page it comes from, and no key in its
address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

from django.http.request import validate_host

from apikeys.models import hash_of
from eventsite.web.gateway.asgi_types import Scope
from eventsite.web.gateway.refusals import Refused

__all__ = ["check_origin", "check_query"]


def check_origin(
    found: Mapping[bytes, bytes], *, hosts: Sequence[str], origins: Sequence[str]
) -> None:
    """Browsers send cookies and name the page's origin, and let any page open a WebSocket anywhere;
    programs name none. Pages of `hosts` (as ALLOWED_HOSTS has them) and of `origins`
    (scheme://host[:port]) may. Raises Refused (403)."""
    origin = found.get(b"origin")
    if origin is not None and not _is_known(origin.decode("latin-1").lower(), hosts, origins):
        raise Refused(403, "Pages of this origin may not open a WebSocket here.")


def _is_known(origin: str, hosts: Sequence[str], origins: Sequence[str]) -> bool:
    if origin in origins:
        return True
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    host = f"[{host}]" if ":" in host else host
    return parts.scheme in ("http", "https") and bool(host) and validate_host(host, hosts)


def check_query(scope: Scope) -> None:
    """Raises Refused (400) for a key in the address, also for one that would have been good: it
    stands in the logs of what lies between."""
    query = scope["query_string"].decode("latin-1")
    if any(hash_of(value) for _, value in parse_qsl(query)):
        message = "An API key must not be in the URL, because logs keep URLs. Revoke this key and send another."
        detail = "Use Authorization, X-API-Key, or the subprotocols bearer, <key>."
        raise Refused(400, message, details=[{"field": "query", "message": detail}])
