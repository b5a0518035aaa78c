"""What a handshake must have beside what every request must: whose page it comes from, and no key in its
address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from django.http.request import validate_host

from apikeys.models import hash_of
from eventsite.web.gateway import refusals
from eventsite.web.gateway.asgi_types import Scope

__all__ = ["SocketRules", "check_origin", "check_query"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketRules:
    """What the settings say beside Rules. Pages of `hosts` (as ALLOWED_HOSTS has them) and of
    `origins` (scheme://host[:port]) may open WebSockets."""

    hosts: Sequence[str]
    origins: Sequence[str]


def check_origin(found: Mapping[bytes, bytes], rules: SocketRules) -> None:
    """Browsers send cookies and name the page's origin, and let any page open a WebSocket anywhere;
    programs name none. Raises Refused (403)."""
    origin = found.get(b"origin")
    if origin is None:
        return
    text = origin.decode("latin-1").lower()
    if text in rules.origins:
        return
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        raise refusals.foreign_origin() from None
    host = f"[{host}]" if ":" in host else host
    if parts.scheme not in ("http", "https") or not host or not validate_host(host, rules.hosts):
        raise refusals.foreign_origin()


def check_query(scope: Scope) -> None:
    """Raises Refused (400) for a key in the address."""
    query = scope["query_string"].decode("latin-1")
    if any(hash_of(value) for _, value in parse_qsl(query)):
        raise refusals.key_in_query()
