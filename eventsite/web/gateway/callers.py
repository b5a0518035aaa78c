"""Who calls: the key of a request, checked against what its route needs, or its address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network

from apikeys.models import hash_of
from apikeys.queries import KeyState
from eventsite.web.gateway.asgi_types import Scope
from eventsite.web.gateway.keyring import Keyring, KeysUnread
from eventsite.web.gateway.rate_limit import RateLimiter
from eventsite.web.gateway.refusals import Refused, turned_away
from eventsite.web.gateway.routes import scope_for
from restapi.context import CURRENT_CALLER, CURRENT_SCOPES
from restapi.declaration import Path

__all__ = [
    "ANONYMOUS",
    "BEARER",
    "bounded_as",
    "caller_key",
    "client_address",
    "with_offered_key",
    "within_limit",
]

ANONYMOUS = "anonymous"
BEARER = "bearer"
_INVALID = b', error="invalid_token"'
_CONFLICT = "Authorization and X-API-Key hold different keys; send one of them."
_SITE = 64  # bits of an IPv6 address that a client cannot choose


def _challenge(status: int, message: str, why: bytes = b"") -> Refused:
    return Refused(status, message, [(b"www-authenticate", b'Bearer realm="api"' + why)])


async def caller_key(
    keyring: Keyring, found: Mapping[bytes, bytes], route: Path, method: str, *, required: bool
) -> KeyState | None:
    """The key of a request, which may do this and is its caller from now on (restapi.context); None
    if none was sent and none is required. Raises Refused."""
    sent = _sent_key(found)
    if sent is None:
        if required:
            message = "Send an API key: Authorization: Bearer <key>, or X-API-Key: <key>."
            raise _challenge(401, message)
        return None
    sha256 = hash_of(sent.decode("latin-1"))
    try:
        key = sha256 and (keyring.recall(sha256) or await keyring.find(sha256))
    except KeysUnread:
        why = "The API key cannot be checked while the database is unavailable"
        raise turned_away(why, method) from None
    if not key:  # one sentence for all: a caller without a key does not learn which keys exist
        raise _challenge(401, "The API key is unknown, expired or revoked.", _INVALID)
    scope = scope_for(route, method)
    if scope and scope not in key.scopes:
        wanted = f', error="insufficient_scope", scope="{scope}"'.encode()
        raise _challenge(403, f"The API key has no scope {scope}.", wanted)
    CURRENT_CALLER.set(key.name)
    CURRENT_SCOPES.set(key.scopes)
    return key


def _sent_key(found: Mapping[bytes, bytes]) -> bytes | None:
    authorization, sent = found.get(b"authorization", b""), found.get(b"x-api-key")
    if authorization[:7].lower() == b"bearer ":
        bearer = authorization[7:].strip()
        if sent is not None and sent != bearer:
            raise _challenge(401, _CONFLICT, _INVALID)
        return bearer
    return sent


def with_offered_key(
    found: Mapping[bytes, bytes], subprotocols: Sequence[str]
) -> Mapping[bytes, bytes]:
    """The headers of a handshake, with the key that a browser offers as subprotocols `bearer, <key>`
    as if it had come by header. Raises Refused."""
    if subprotocols[:1] != [BEARER]:
        return found
    offered = "".join(subprotocols[1:2]).encode("latin-1", "replace")
    if found.get(b"x-api-key", offered) != offered:
        raise _challenge(401, _CONFLICT, _INVALID)
    return {**found, b"x-api-key": offered}


async def within_limit(limiter: RateLimiter, bounded: str) -> None:
    """Take a token of `bounded_as`. Raises Refused if there is none."""
    seconds = await limiter.take(bounded)
    if seconds:
        limit = limiter.limit.text
        message = f"Too many requests: the limit is {limit}; try again in {seconds} s."
        raise Refused(429, message, [(b"retry-after", str(seconds).encode())])


def bounded_as(caller: str, scope: Scope, found: Mapping[bytes, bytes], *, proxies: int) -> str:
    """Whose limits count: those of the key's name, else of the address."""
    if caller == ANONYMOUS:
        return f"address:{client_address(scope, found, proxies=proxies)}"
    return f"key:{caller}"


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
