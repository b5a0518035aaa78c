"""What a WebSocket's consumer and the gateway around it say to each other.

Close codes: RFC 6455, 7.4.1, and the registry that it names (1012 and up).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

__all__ = ["PUSH", "CloseCode", "Push", "SocketRefused", "UnknownMessage"]

# In `extensions` of a WebSocket's ASGI scope, where the server under it has it: writes a whole frame at
# once. False: the client does not keep up, or the socket is not open, and nothing was written; then
# `send` says what becomes of the message.
PUSH = "eventsite.push"
Push = Callable[[bytes], bool]


class CloseCode(IntEnum):
    """Why the server closes a WebSocket."""

    DONE = 1000
    GOING_AWAY = 1001  # the process stops; the client connects again
    UNKNOWN_KIND = 1003  # a message that nobody here takes
    NO_TEXT = 1007  # a text message that is no UTF-8
    KEY_REVOKED = 1008  # revoked, expired, or without the scope now
    TOO_BIG = 1009
    OUR_FAULT = 1011
    TOO_SLOW = 1013  # the client does not read, or answers no ping


class SocketRefused(Exception):
    """Raised by a consumer before it accepts: the handshake's answer, in the shape of all errors.

    `details`: (field, message) pairs.
    """

    def __init__(self, status: int, message: str, details: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


class UnknownMessage(Exception):
    """Raised by a consumer about a message of its client: of a kind that it does not know, or one
    that it cannot read. Closes the WebSocket with 1003."""
