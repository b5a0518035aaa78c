"""Sessions with PostgreSQL that all hot paths of a process share. What a session keeps (prepared
statements and their plans) belongs to the session, so any path may use any of them."""

from __future__ import annotations

import asyncio
from collections import deque

from eventsite.web.hot_paths.session import Session

__all__ = ["SessionPool", "SessionTurn"]


class SessionPool:
    """`size` sessions, each opened when it is first used. Belongs to one event loop.

    The session that was given back last is taken first, so that few sessions do all the work
    under little load. When all are taken, the path that has waited longest gets the next one.
    """

    def __init__(self, size: int) -> None:
        self._sessions = [Session() for _ in range(size)]
        self._free = self._sessions[::-1]
        self._waiting: deque[asyncio.Future[Session]] = deque()

    def turn(self) -> SessionTurn:
        """For a path that needs a session again and again, one at a time: held by `async
        with`."""
        return SessionTurn(self)

    async def take(self) -> Session:
        """The wait has no bound of its own: every holder has one."""
        if self._free:
            return self._free.pop()
        turn: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was handed over just before
                self.give_back(turn.result())
            raise

    def give_back(self, session: Session) -> None:
        """Hand it to the waiter that has waited longest, if there is one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else nobody waits for it any more
                turn.set_result(session)
                return
        self._free.append(session)

    async def close(self) -> None:
        """Say goodbye to the server; nobody may hold a session any more."""
        for session in self._sessions:
            await session.close()


class SessionTurn:
    """A session for the length of a block; a class, because it costs each batch."""

    session: Session  # within the block

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Session:
        self.session = await self._pool.take()
        return self.session

    async def __aexit__(self, *error: object) -> None:
        self._pool.give_back(self.session)
