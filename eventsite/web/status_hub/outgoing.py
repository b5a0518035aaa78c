"""A message for any number of sockets, encoded once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from eventsite.web.socket_protocol import text_frame

__all__ = ["Outgoing", "encoded"]


class Outgoing(NamedTuple):
    """message  as ASGI takes it
    frame    as it travels
    """

    message: Mapping[str, Any]
    frame: bytes


def encoded(message: Mapping[str, Any]) -> Outgoing:
    """What carries it."""
    text = msgspec.json.encode(message)
    return Outgoing({"type": "websocket.send", "text": text.decode()}, text_frame(text))
