"""Who calls: the key of a request, checked against what its route needs, or its address."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network

from apikeys.models import hash_of
from apikeys.queries import KeyState
from eventsite.gateway.asgi_types import Scope
from eventsite.gateway.keyring import Keyring, KeysUnread
from eventsite.gateway.refusals import (
    key_conflict,
    key_missing,
    key_unknown,
    keys_unread,
    scope_missing,
)
from eventsite.gateway.routes import Route, scope_for

__all__ = ["admitted", "client_address", "sent_key"]

_SITE = 64  # bits of an IPv6 address that a client cannot choose


async def admitted(keyring: Keyring, sent: str, route: Route, method: str) -> KeyState:
    """The key that was sent, if it may do this. Raises Refused."""
    sha256 = hash_of(sent)
    try:
        key = sha256 and (keyring.recall(sha256) or await keyring.find(sha256))
    except KeysUnread:
        raise keys_unread() from None
    if not key:
        raise key_unknown()
    scope = scope_for(route, method)
    if scope and scope not in key.scopes:
        raise scope_missing(scope)
    return key


def sent_key(found: Mapping[bytes, bytes], *, required: bool) -> str | None:
    """The text of a request's key; None if none was sent and none is required. Raises Refused."""
    authorization, sent = found.get(b"authorization", b""), found.get(b"x-api-key")
    if authorization[:7].lower() == b"bearer ":
        bearer = authorization[7:].strip()
        if sent is not None and sent != bearer:
            raise key_conflict()
        sent = bearer
    if sent is None:
        if required:
            raise key_missing()
        return None
    return sent.decode("latin-1")


def client_address(scope: Scope, found: Mapping[bytes, bytes], *, proxies: int) -> str:
    """Address of the client, of an IPv6 client its network.

    X-Forwarded-For is whatever the client likes but for the entries that our own `proxies` have
    appended at its end, the first of which is the client's; without proxies nobody looks at it.
    """
    peer = scope["client"][0] if scope.get("client") else ""
    if proxies:
        entries = found.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        if len(entries) >= proxies:
            return _network(entries[-proxies].strip()) or _network(peer) or peer
    return _network(peer) or peer


def _network(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, _SITE), strict=False))
        address = address.ipv4_mapped
    return str(address)
