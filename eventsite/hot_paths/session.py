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
KEEP_PLANS = "SET plan_cache_mode = force_generic_plan"
FORGET_PLANS = "DISCARD PLANS"
PLAN_SECONDS = 1.0

_DJANGOS_OWN = ("context", "cursor_factory")  # of the parameters: for its wrappers and models


class Session:
    """One connection with Django's parameters, opened by the first statement, one user at a time."""

    def __init__(self) -> None:
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._forget_at = 0.0  # on the loop's clock

    async def rows(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a statement that only reads: on a connection that has died since its last
        use it is sent once more, on a new one. Raises psycopg.Error."""
        if self._connection is None:
            return await self._rows(sql, parameters)
        try:
            return await self._rows(sql, parameters)
        except psycopg.OperationalError:
            if not self._connection.closed:
                raise
        return await self._rows(sql, parameters)

    async def _rows(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        connection = await self._live()
        cursor = await connection.execute(sql, parameters)
        return await cursor.fetchall()

    async def _live(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        now = asyncio.get_running_loop().time()
        if self._connection is None or self._connection.closed:
            given = connections["default"].get_connection_params()
            known = {name: value for name, value in given.items() if name not in _DJANGOS_OWN}
            self._connection = await psycopg.AsyncConnection.connect(**known, autocommit=True)
            await self._connection.execute("SET TIME ZONE 'UTC'")
            await self._connection.execute(KEEP_PLANS)
        elif now >= self._forget_at:
            await self._connection.execute(FORGET_PLANS)
        else:
            return self._connection
        self._forget_at = now + PLAN_SECONDS
        return self._connection

    async def close(self) -> None:
        """Say goodbye to the server."""
        if self._connection is not None:
            await self._connection.close()
