"""The ASGI lifespan: little at the start, and what was accepted is finished at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from eventsite.gateway.asgi_types import Receive, Scope, Send
from outbox import metrics

__all__ = ["Lifespan"]


class Lifespan:
    """Answers start and stop; servers log the absence of an answer as an error."""

    def __init__(self, *, at_end: Callable[[], Awaitable[None]]) -> None:
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                metrics.PROCESS_UP.labels("web").set(1)
            else:
                await self._at_end()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
