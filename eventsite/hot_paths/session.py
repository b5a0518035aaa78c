"""A connection to PostgreSQL on the event loop, for statements that only read.

Reads of hot paths wait on the loop itself: a second thread would cost two wake-ups and the
interpreter's lock for each batch, which is more than the statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import connections

__all__ = ["FORGET_PLANS", "KEEP_PLANS", "PLAN_SECONDS", "Session"]

# All that the connections of hot paths do is inserted or found by a key: one plan is right for any
# parameters, also for the checks of foreign keys, which would otherwise be planned anew for every
# row. But a plan made while a table was empty may read all of it later, so none is kept for long.
_GENERIC = "plan_cache_mode=force_generic_plan"
KEEP_PLANS = f"SET {_GENERIC}"
FORGET_PLANS = "DISCARD PLANS"
PLAN_SECONDS = 1.0

_OPTIONS = f"-c {_GENERIC} -c TimeZone=UTC"  # the last of two holds
_DJANGOS_OWN = ("context", "cursor_factory")  # of the parameters: for its wrappers and models


class Session:
    """One connection with Django's parameters, opened by the first statement, one user at a time.

    A statement that has no answer after `patience` seconds has its connection closed under it."""

    def __init__(self, *, patience: float = 5.0) -> None:
        self._patience = patience
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._forget_at = 0.0  # on the loop's clock

    async def rows(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a statement that only reads: on a connection that has died since its last
        use it is sent once more, on a new one. Raises psycopg.Error."""
        lasting, begin = self._connection, asyncio.get_running_loop().time()
        try:
            return await self._rows(sql, parameters)
        except psycopg.OperationalError:
            over = asyncio.get_running_loop().time() - begin >= self._patience
            if lasting is None or not lasting.closed or over:
                raise
        return await self._rows(sql, parameters)

    async def _rows(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        connection = await self._live()
        # To cancel a statement psycopg asks the server, which is the one that does not answer; but
        # it looks at the connection ten times a second, and finds it closed.
        alarm = asyncio.get_running_loop().call_later(self._patience, connection.pgconn.finish)
        try:
            if self._plans_are_old():
                await connection.execute(FORGET_PLANS)
            cursor = await connection.execute(sql, parameters)
            return await cursor.fetchall()
        finally:
            alarm.cancel()

    async def _live(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            given = connections["default"].get_connection_params()
            known = {name: value for name, value in given.items() if name not in _DJANGOS_OWN}
            known["options"] = f"{given.get('options', '')} {_OPTIONS}"
            self._connection = await psycopg.AsyncConnection.connect(**known, autocommit=True)
            self._forget_at = asyncio.get_running_loop().time() + PLAN_SECONDS
        return self._connection

    def _plans_are_old(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._forget_at:
            return False
        self._forget_at = now + PLAN_SECONDS
        return True

    async def close(self) -> None:
        """Say goodbye to the server."""
        if self._connection is not None:
            await self._connection.close()
