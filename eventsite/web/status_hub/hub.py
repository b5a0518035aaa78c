"""The status hub of a web process: a reader for each declared log, and the sockets' way to it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence

import psycopg
import structlog

from eventsite.web.gateway.asgi_types import Application, Receive, Scope, Send
from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.status_hub import seat
from eventsite.web.status_hub.nudges import Nudges
from eventsite.web.status_hub.reader import LogReader
from restapi.sockets import Push, SocketRefused
from restapi.status_log import HUB, Seat, StatusLog

__all__ = ["Hub"]

SESSIONS = 2  # with PostgreSQL: looks, and what clients have missed

log = structlog.get_logger("status_hub")


class Hub:
    """Belongs to the event loop on which it is started. Without a log it does nothing."""

    def __init__(self, logs: Sequence[StatusLog], redis_url: str) -> None:
        self._logs = logs
        self._sessions = SessionPool(SESSIONS)
        self._readers: dict[str, LogReader] = {}
        self._nudges = Nudges(redis_url, wanted=self._has_seats, heard=self._nudge)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Waits for no server."""
        loop = asyncio.get_running_loop()
        self._readers = {each.name: LogReader(each, self._sessions) for each in self._logs}
        self._tasks = [loop.create_task(reader.run()) for reader in self._readers.values()]
        if self._readers:
            self._tasks.append(loop.create_task(self._nudges.run()))

    async def close(self) -> None:
        """For the end of the process, when the sockets are closed."""
        for task in self._tasks:
            task.cancel()
        for reader in self._readers.values():
            await reader.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sessions.close()

    async def enter(
        self,
        log: str,
        subject: Hashable,
        *,
        since: int | None,
        send: seat.Send,
        push: Push,
        close: seat.Close,
    ) -> Seat:
        """As StatusHub says."""
        try:
            line = seat.SendLine(send, push, close)
            place = await self._readers[log].enter(subject, since=since, line=line)
        except (psycopg.Error, TimeoutError) as error:
            raise SocketRefused(503, "The live feed is unavailable; try again.") from error
        self._nudges.wake()
        return place

    def around(self, application: Application) -> Application:
        """An ASGI application whose consumers find the hub in their scope."""

        async def with_hub(scope: Scope, receive: Receive, send: Send) -> None:
            await application({**scope, HUB: self}, receive, send)

        return with_hub

    def _has_seats(self) -> bool:
        return any(reader.has_seats for reader in self._readers.values())

    def _nudge(self, log: str) -> None:
        for name, reader in self._readers.items():
            if log in (name, ""):
                reader.nudge()
