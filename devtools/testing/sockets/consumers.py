"""Consumers as an app would write them, and some that fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog
from channels.generic.websocket import AsyncWebsocketConsumer

from restapi.context import caller, trace_context
from restapi.sockets import SocketRefused, UnknownMessage

__all__ = ["Bytes", "Obedient"]

log = structlog.get_logger("sockets")


class Obedient(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Its name says how it opens, each text what it does then; it logs its end."""

    async def connect(self) -> None:
        match self.scope["url_route"]["kwargs"]["name"]:
            case "raise":
                raise ValueError("before it is open")
            case "bad":
                raise SocketRefused(400, "The query is not valid.", [("since", "Is no number.")])
            case "full":
                raise SocketRefused(503, "There is no room.")
            case "close":
                await self.close()
            case "wait":
                await asyncio.sleep(3600)
            case name:
                await self.accept()
                await self.send(json.dumps(self._opening(name)))

    def _opening(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "caller": caller(),
            "correlation_id": trace_context().correlation_id,
            "headers": {key.decode(): value.decode() for key, value in self.scope["headers"]},
            "subprotocols": self.scope["subprotocols"],
        }

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        match text_data:
            case "raise":
                raise ValueError("while it is open")
            case "unknown":
                raise UnknownMessage("This is not known.")
            case "close":
                await self.close(4001)
            case "flood":
                for _ in range(1_000):
                    await self.send("x" * 65_536)
            case _:
                await self.send(f"you said {text_data}")

    async def disconnect(self, code: int) -> None:
        log.warning("consumer_heard", code=code, name=self.scope["url_route"]["kwargs"]["name"])


class Bytes(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Answers with what it was sent."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)
