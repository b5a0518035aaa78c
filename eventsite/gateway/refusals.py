"""Answers that the gateway gives itself, in the shape of all other errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from restapi.errors import OUTCOMES, RETRY_AFTER_SECONDS
from restapi.json import JSONRenderer

__all__ = [
    "BodyIncomplete",
    "Refused",
    "body_too_large",
    "key_conflict",
    "key_missing",
    "key_unknown",
    "keys_unread",
    "scope_missing",
    "server_error",
    "stopping",
    "too_many",
]

_REALM = b'Bearer realm="api"'
_CLOSE = (b"connection", b"close")


class Refused(Exception):
    """The answer to a request that goes no further."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body: bytes = JSONRenderer().render({"error": message, "details": [], **fields})


class BodyIncomplete(Refused):
    """The body broke off: the client hung up, or what came is not in the coding it announced.

    Servers tell both as a disconnect. Who is still there gets an answer, the others do not mind.
    """

    def __init__(self) -> None:
        super().__init__(400, "The body could not be read to its end.", [_CLOSE])


def body_too_large(limit: int) -> Refused:
    """Said without reading the rest, so the connection cannot be used again."""
    return Refused(413, f"The body is larger than {limit} bytes.", [_CLOSE])


def key_missing() -> Refused:
    message = "Send an API key: Authorization: Bearer <key>, or X-API-Key: <key>."
    return Refused(401, message, [(b"www-authenticate", _REALM)])


def key_conflict() -> Refused:
    return _invalid("Authorization and X-API-Key hold different keys; send one of them.")


def key_unknown() -> Refused:
    """One sentence for all of these: who holds no key is not told which keys there were."""
    return _invalid("The API key is unknown, expired or revoked.")


def _invalid(message: str) -> Refused:
    return Refused(401, message, [(b"www-authenticate", _REALM + b', error="invalid_token"')])


def scope_missing(scope: str) -> Refused:
    challenge = f', error="insufficient_scope", scope="{scope}"'.encode()
    message = f"The API key has no scope {scope}."
    return Refused(403, message, [(b"www-authenticate", _REALM + challenge)])


def keys_unread() -> Refused:
    message = (
        "The API key cannot be checked while the database is away; nothing was stored, try again."
    )
    return Refused(503, message, [(b"retry-after", b"2")], outcome="not_stored")


def too_many(limit: str, seconds: int) -> Refused:
    """`seconds`: when to come again, rounded up."""
    message = f"Too many requests: the limit is {limit}; try again in {seconds} s."
    return Refused(429, message, [(b"retry-after", str(seconds).encode())])


def stopping(outcome: str) -> Refused:
    """To whom the server has no time left for; `outcome`: what has become of the request."""
    return Refused(
        503,
        OUTCOMES[outcome],
        [(b"retry-after", str(RETRY_AFTER_SECONDS).encode()), _CLOSE],
        outcome=outcome,
    )


def server_error() -> Refused:
    return Refused(500, "Internal error.")
