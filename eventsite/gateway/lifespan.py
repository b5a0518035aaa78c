"""The ASGI lifespan: little to do, and said so, because servers log its absence as an error."""

from __future__ import annotations

from eventsite.gateway.asgi_types import Receive, Scope, Send
from outbox import metrics

__all__ = ["lifespan"]


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer start and stop. Connections and threads are made at first use."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            metrics.PROCESS_UP.labels("web").set(1)
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
