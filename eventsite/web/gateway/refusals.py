"""Answers that the gateway gives itself, in the shape of all other errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsite.web.gateway.asgi_types import Send
from restapi.errors import OUTCOMES, READS, RETRY_AFTER_SECONDS, turned_away_body
from restapi.json import JSONRenderer

__all__ = [
    "CLOSE",
    "RETRY",
    "BodyIncomplete",
    "Refused",
    "bad_host",
    "body_too_large",
    "invalid_header",
    "send_refusal",
    "server_error",
    "stopping",
    "turned_away",
]

CLOSE = (b"connection", b"close")
RETRY = ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),)


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
        self.body: bytes = JSONRenderer().render({"error": message, "details": []} | fields)


async def send_refusal(
    send: Send,
    refused: Refused,
    headers: Sequence[tuple[bytes, bytes]],
    kind: str = "http.response",
) -> None:
    """The whole answer; `kind` begins the names of ASGI's messages."""
    every = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(refused.body)).encode()),
        *headers,
        *refused.headers,
    ]
    await send({"type": f"{kind}.start", "status": refused.status, "headers": every})
    await send({"type": f"{kind}.body", "body": refused.body})


def invalid_header(name: str, message: str, detail: str) -> Refused:
    return Refused(400, message, details=[{"field": name, "message": detail}])


def bad_host(message: str) -> Refused:
    return invalid_header(
        "Host", message, "Must be the host of the URL, and its port if it has one."
    )


class BodyIncomplete(Refused):
    """The body broke off: the client hung up, or what came is not in the coding it announced.

    ASGI reports both as a disconnect. A client that is still connected receives this 400.
    """

    def __init__(self) -> None:
        super().__init__(400, "The body is incomplete or malformed.", [CLOSE])


def body_too_large(limit: int) -> Refused:
    """Said without reading the rest, so the connection cannot be used again."""
    return Refused(413, f"The body is larger than {limit} bytes.", [CLOSE])


def turned_away(why: str, method: str) -> Refused:
    """Of a request that has not got as far as the database; `why` begins the sentence."""
    body = turned_away_body(why, None if method in READS else "not_stored")
    return Refused(503, body.pop("error"), RETRY, **body)


def stopping(method: str, outcome: str) -> Refused:
    """To whom the server has no time left for; `outcome`: what has become of it, if it is a write."""
    headers = [*RETRY, CLOSE]
    if method in READS:
        return Refused(503, "This process is stopping; try again.", headers)
    return Refused(503, OUTCOMES[outcome], headers, outcome=outcome)


def server_error() -> Refused:
    return Refused(500, "Internal error.")
