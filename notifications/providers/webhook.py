"""Providers that are called over HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from pyreqwest.client import Client

from notifications.providers import message as words
from notifications.providers.http import CallFailed, HttpReply, new_client, post
from notifications.providers.message import OutgoingText, ProviderAnswer
from notifications.providers.retry_after import seconds_to_wait
from notifications.providers.signature import key_of_secret, signed_headers

__all__ = ["Webhook", "answer_of"]

HOLD_UNSAID = 5.0  # seconds after a 429 that does not say how long
# Not about the message: the provider is not well, or we are not set up as it wants.
_PROVIDER_FAULT = frozenset({401, 403, 407, 408})

_encode = msgspec.json.Encoder().encode


class WebhookSettings(words.Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url     where to
    secret  `whsec_…`; unset: not signed
    headers sent with each message, for example Authorization
    """

    url: str
    secret: str = ""
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url must be an http or https address")
        if self.secret:
            key_of_secret(self.secret)


class Webhook:
    """POST {"to", "channel", "content"}; what the status means is the contract's (see `answer_of`)."""

    Settings: ClassVar[type[words.Settings]] = WebhookSettings

    def __init__(self, name: str, settings: Any) -> None:
        self._settings: WebhookSettings = settings
        self._key = key_of_secret(settings.secret) if settings.secret else b""
        self._client: Client | None = None

    async def send(self, message: OutgoingText, *, traceparent: str) -> ProviderAnswer:
        body = _encode(
            {"to": message.recipient, "channel": message.channel, "content": message.content}
        )
        headers = {
            **self._settings.headers,
            "content-type": "application/json",
            "idempotency-key": message.idempotency_key,
            "traceparent": traceparent,
        }
        if self._key:
            headers |= signed_headers(
                self._key,
                message_id=message.idempotency_key.replace(".", "_"),
                timestamp=int(time.time()),
                body=body,
            )
        if self._client is None:
            self._client = new_client()
        url, timeout = self._settings.url, self._settings.timeout
        try:
            reply = await post(self._client, url, headers=headers, body=body, timeout=timeout)
        except CallFailed as error:
            return ProviderAnswer(verdict=words.FAILED, error=str(error))
        return answer_of(reply, now=datetime.now(UTC))

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


def answer_of(reply: HttpReply, *, now: datetime) -> ProviderAnswer:
    """What a status means. 2xx: delivered. 429, and 503 with Retry-After: wait. Another 5xx, 408, and
    what is about us or the way and not the message (3xx, 401, 403, 407): not this time. Another 4xx:
    never. A 1xx as the last word is no answer. What else an answer says, and whether it can be read, never
    changes that."""
    status = reply.status
    if 200 <= status < 300:
        return ProviderAnswer(
            verdict=words.DELIVERED, status_code=status, message_id=_message_id(reply.body)
        )
    said = f"The provider answered {status}."
    if status in (429, 503):
        seconds = seconds_to_wait(reply.retry_after, date=reply.date, now=now)
        if seconds is None and status == 429:
            seconds = HOLD_UNSAID
        if seconds is not None:
            return ProviderAnswer(
                verdict=words.HELD, status_code=status, error=said, hold_seconds=seconds
            )
    passing = status < 400 or status >= 500 or status in _PROVIDER_FAULT
    return ProviderAnswer(
        verdict=words.FAILED if passing else words.REFUSED, status_code=status, error=said
    )


class _Said(msgspec.Struct):
    messageId: str | int | None = None


_decode = msgspec.json.Decoder(_Said).decode


def _message_id(body: bytes) -> str | None:
    """What the answer calls the message; anything unreadable is no id, and no failure."""
    try:
        said = _decode(body).messageId
    except Exception:  # noqa: BLE001  (also RecursionError; a failure would send the message again)
        return None
    if said is None:
        return None
    # PostgreSQL has no NUL in a text.
    return str(said).replace("\0", "")[: words.MESSAGE_ID_LENGTH] or None
