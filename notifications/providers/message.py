"""What a provider gets, and how it answers."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import msgspec

__all__ = [
    "DELIVERED",
    "FAILED",
    "HELD",
    "REFUSED",
    "OutgoingText",
    "Provider",
    "ProviderAnswer",
    "ProviderError",
    "Settings",
]

# delivered  the provider took it
# failed     not this time: the provider or our configuration; the breaker counts it
# refused    never: this message or this recipient; the breaker does not count it
# held       the provider asked to wait: no attempt is used up
DELIVERED, FAILED, REFUSED, HELD = "delivered", "failed", "refused", "held"

ERROR_LENGTH = 500
LONGEST_TIMEOUT = 8.0  # seconds; leases are made for it
MESSAGE_ID_LENGTH = 255


class ProviderError(ValueError):
    """PROVIDERS names a provider that cannot be; the text says which and why."""


class OutgoingText(msgspec.Struct, frozen=True, kw_only=True):
    """One notification as it is sent.

    idempotency_key  the same for every attempt until an operator retries it
    title            name of its template; "": none
    """

    id: str
    idempotency_key: str
    recipient: str
    channel: str
    content: str
    title: str = ""


class ProviderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider answered: one of the verdicts above.

    hold_seconds  of a held one: how long the provider asked to wait
    """

    verdict: str
    status_code: int | None = None
    error: str | None = None
    message_id: str | None = None
    hold_seconds: float = 0.0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What PROVIDERS says of every kind of provider; each kind adds its own.

    channels   that it serves; its place in PROVIDERS is its place in their order
    in_flight  messages under way at a time, for each channel and worker process
    timeout    seconds for one message, all of it
    """

    kind: str
    channels: tuple[str, ...] = ("sms", "email", "push")
    in_flight: int = 100
    timeout: float = 5.0

    def __post_init__(self) -> None:
        unknown = set(self.channels).difference(("sms", "email", "push"))
        if unknown or not self.channels:
            raise ValueError("channels must be one or more of sms, email and push")
        if not 1 <= self.in_flight <= 1000:
            raise ValueError("in_flight must be a number from 1 to 1000")
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise ValueError(f"timeout must be above 0 and at most {LONGEST_TIMEOUT:g} seconds")


class Provider(Protocol):
    """One configured provider. It belongs to one event loop.

    Settings  the class of its settings
    """

    Settings: ClassVar[type[Settings]]

    def __init__(self, name: str, settings: Any) -> None: ...

    async def send(self, message: OutgoingText, *, traceparent: str) -> ProviderAnswer:
        """Send it, within the timeout of the settings. Answers for every error of the other side."""

    async def close(self) -> None:
        """Let go of connections."""
