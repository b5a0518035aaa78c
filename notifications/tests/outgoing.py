"""A text on its way to a provider."""

from __future__ import annotations

from notifications.providers.message import OutgoingText


def message(**changes: str) -> OutgoingText:
    given = {
        "id": "n-1",
        "idempotency_key": "n-1.2",
        "recipient": "+15550001",
        "channel": "sms",
        "content": "Hello",
    }
    return OutgoingText(**{**given, **changes})
