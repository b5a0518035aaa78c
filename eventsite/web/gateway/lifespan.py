"""The ASGI lifespan: little at the start, and what was accepted is finished at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from outbox import metrics

__all__ = ["Lifespan"]

Step = Callable[[], Awaitable[None]]


class Lifespan:
    """Answers start and stop; servers log the absence of an answer as an error."""

    def __init__(self, *, at_start: Sequence[Step] = (), at_end: Sequence[Step] = ()) -> None:
        self._at_start = at_start
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            starts = message["type"] == "lifespan.startup"
            for step in self._at_start if starts else self._at_end:
                await step()
            if starts:
                metrics.PROCESS_UP.labels("web").set(1)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
