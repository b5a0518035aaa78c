"""The ASGI lifespan: little at the start, and what was accepted is finished at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from eventsite.web.gateway.asgi_types import Application, Receive, Scope, Send
from outbox import metrics

__all__ = ["lifespan"]

Step = Callable[[], Awaitable[None]]


def lifespan(*, at_start: Sequence[Step] = (), at_end: Sequence[Step] = ()) -> Application:
    """Answers start and stop; servers log the absence of an answer as an error."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            starts = message["type"] == "lifespan.startup"
            for step in at_start if starts else at_end:
                await step()
            if starts:
                metrics.PROCESS_UP.labels("web").set(1)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    return answer
