"""One POST over HTTP by pyreqwest (docs/adr/0009-http-client-of-providers.md): redirects are not
followed, nothing is sent again, and the timeout holds for the whole call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import RequestTimeoutError
from pyreqwest.response import BaseResponse

__all__ = ["CallFailed", "HttpReply", "new_client", "post"]

BODY_LIMIT = 65_536  # bytes of an answer that are read; the rest is left, and the connection closed


class HttpReply(msgspec.Struct, frozen=True):
    """An answer: its status, the two headers that are asked for, and the beginning of its body."""

    status: int
    retry_after: str | None
    date: str | None
    body: bytes


class CallFailed(Exception):
    """No answer: connection, TLS, protocol, time; the text is a sentence that says what."""


async def post(
    client: Client, url: str, *, headers: Mapping[str, str], body: bytes, timeout: float
) -> HttpReply:
    """Send it once; `timeout` in seconds for all of it. Raises CallFailed.

    Whatever fails behind the status of an answer changes nothing: the status has been said.
    """
    request = (
        client.post(url)
        .headers(dict(headers))
        .body_bytes(body)
        .timeout(timedelta(seconds=timeout))
        .streamed_read_buffer_limit(0)  # the head is there before the body
        .build_streamed()
    )
    reply: HttpReply | None = None
    try:
        async with request as response:
            reply = HttpReply(
                response.status, _header(response, "retry-after"), _header(response, "date"), b""
            )
            read = await response.body_reader.read(BODY_LIMIT)
            if read:
                reply = msgspec.structs.replace(reply, body=bytes(read))
    except RequestTimeoutError as error:
        if reply is None:
            raise CallFailed(f"The provider gave no answer in {timeout:g} s.") from error
    except Exception as error:  # PyreqwestError, and what else an answer may bring about
        if reply is None:
            # The kind alone: in an address there may be a secret.
            kind = type(error).__name__
            raise CallFailed(f"The provider could not be reached: {kind}.") from error
    assert reply is not None
    return reply


def new_client() -> Client:
    """Belongs to one event loop."""
    return (
        ClientBuilder()
        .follow_redirects(False)
        .no_proxy()
        .referer(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .user_agent("eventsite")
        .http1_lower_case_headers()
        .pool_idle_timeout(timedelta(seconds=30))
        .build()
    )


def _header(response: BaseResponse, name: str) -> str | None:
    """None also for one that is no text: bytes beyond ASCII are allowed in it (RFC 9110, 5.5)."""
    try:
        return response.get_header(name)
    except ValueError:
        return None
