"""A session with PostgreSQL on the event loop, for what hot paths read and write. A thread would cost
two wake-ups for each batch, and compete for the interpreter's lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import psycopg
import structlog
from django.db import connections
from psycopg.errors import ConnectionTimeout
from psycopg.pq import TransactionStatus

from eventsite.web.hot_paths.wire import Wire
from outbox.database import patience
from outbox.database.round_trips import Change, Row, Statement, Steps
from outbox.database.unit_of_work import Commit, commit_outcome

__all__ = ["Session"]

Result = TypeVar("Result")

# All that the connections of hot paths do is inserted or found by a key: one plan is right for any
# parameters, also for the checks of foreign keys, which would otherwise be planned again for every
# row. But a plan made while a table was empty may read all of it later, so none is kept for long.
_OPTIONS = "-c plan_cache_mode=force_generic_plan -c TimeZone=UTC"  # the last of two holds
FORGET_PLANS: Statement = ("DISCARD PLANS", ())
PLAN_SECONDS = 1.0
_BEGIN: Statement = ("BEGIN", ())
_COMMIT: Statement = ("COMMIT", ())
_COMMITTED = b"COMMIT"  # what the server says then
_ROLLBACK: Statement = ("ROLLBACK", ())
_DJANGOS_OWN = ("context", "cursor_factory")  # of the parameters: for its wrappers and models

log = structlog.get_logger("hot_paths")


class Session:
    """One connection with Django's parameters, opened by the first statement, one user at a time.

    A read that has no answer after `patience` seconds has its connection closed under it. A write
    waits as long as its work may (outbox/database/patience.py), or for its connection to end: until then the
    server may still say what became of it."""

    def __init__(self, *, patience: float = 5.0, plan_seconds: float = PLAN_SECONDS) -> None:
        self._patience, self._plan_seconds = patience, plan_seconds
        self._wire: Wire | None = None
        self._forget_at = 0.0  # on the loop's clock
        # Django's own is one a task, with a connection object around it: once is enough.
        self._as_djangos = connections["default"].wrap_database_errors

    async def rows(self, statement: Statement) -> Sequence[Row]:
        """All rows of a statement that only reads. As `read`."""
        return (await self.read([statement]))[0]

    async def read(self, statements: Sequence[Statement]) -> Sequence[Sequence[Row]]:
        """All rows of statements that only read, in one round trip, each with a snapshot of its own:
        on a connection that has died since its last use they are sent once more, on a new one.
        Raises psycopg.Error."""
        lasting, begin = self._wire, asyncio.get_running_loop().time()
        try:
            return await self.trip(statements)
        except psycopg.OperationalError:
            over = asyncio.get_running_loop().time() - begin >= self._patience
            if lasting is None or not lasting.closed or over:
                raise
        return await self.trip(statements)

    async def trip(self, statements: Sequence[Statement]) -> list[Sequence[Row]]:
        """The rows of each statement, in one round trip and one transaction: committed when this
        returns. Nothing is sent again. Raises psycopg.Error."""
        wire = await self._live()
        left = patience.left()
        seconds = self._patience if left is None else min(left, self._patience)
        before = self._old_plans()
        with _closed_after(seconds, wire):
            return (await wire.trip([*before, *statements]))[len(before) :]

    async def transact(self, steps: Steps[Result]) -> Sequence[Result]:
        """All round trips in one transaction, COMMIT with the last of them; then the results.

        Whatever the steps raise rolls it back. Raises NotStored or OutcomeUnknown if the database
        fails, other errors of it as Django's, and what the steps raise: but for OutcomeUnknown
        nothing is stored.
        """
        on_commit: list[Callable[[], None] | None] = []
        with commit_outcome() as commit, self._as_djangos:
            wire = await self._live()
            with _closed_after(patience.left(), wire):
                change = await self._write(wire, steps, on_commit, commit)
        for callback in (*on_commit, change.trip.on_commit):
            try:
                if callback is not None:
                    callback()
            except Exception:
                log.exception("on_commit_failed")  # it is stored, whatever this is
        return change.results

    async def _write(
        self,
        wire: Wire,
        steps: Steps[Result],
        on_commit: list[Callable[[], None] | None],
        commit: Commit,
    ) -> Change[Result]:
        before: Sequence[Statement] = (_BEGIN, *self._old_plans())
        try:
            try:
                trip = next(steps)
                while True:
                    rows = await wire.trip([*before, *trip.statements], trip.meanwhile)
                    rows, before = rows[len(before) :], ()
                    on_commit.append(trip.on_commit)
                    trip = steps.send(rows)
            except StopIteration as end:
                change: Change[Result] = end.value
            if change.trip.statements or not before:
                await _commit(wire, [*before, *change.trip.statements, _COMMIT], commit)
        except Exception:
            await _roll_back(wire)
            raise
        return change

    async def _live(self) -> Wire:
        if self._wire is not None and self._wire.state != TransactionStatus.IDLE:
            self._wire.close()  # whoever had it before has left something open
        if self._wire is None or not self._wire.is_alive():
            given = connections["default"].get_connection_params()
            known = {name: value for name, value in given.items() if name not in _DJANGOS_OWN}
            known["options"] = f"{given.get('options', '')} {_OPTIONS}"
            try:
                async with asyncio.timeout(patience.left()):
                    connection = await psycopg.AsyncConnection.connect(**known, autocommit=True)
            except (TimeoutError, ConnectionTimeout) as error:
                raise patience.give_up("connect") from error
            patience.note_answer()
            self._wire = Wire(connection)
            self._forget_at = asyncio.get_running_loop().time() + self._plan_seconds
        return self._wire

    def _old_plans(self) -> Sequence[Statement]:
        """What forgets them, when it is time."""
        now = asyncio.get_running_loop().time()
        if now < self._forget_at:
            return ()
        self._forget_at = now + self._plan_seconds
        return (FORGET_PLANS,)

    async def close(self) -> None:
        """Say goodbye to the server."""
        if self._wire is not None:
            self._wire.close()


@contextmanager
def _closed_after(seconds: float | None, wire: Wire) -> Iterator[None]:
    """Closes the connection under who still waits then. To cancel a statement would mean to ask the
    server, which is the one that does not answer."""
    if seconds is None:
        yield
        return
    alarm = asyncio.get_running_loop().call_later(
        seconds, lambda: wire.close(patience.give_up("answer"))
    )
    try:
        yield
    finally:
        alarm.cancel()


async def _commit(wire: Wire, statements: Sequence[Statement], commit: Commit) -> None:
    """Send the last statements, COMMIT behind them. The server's answer that this is done
    counts, also when the session ends right after it."""
    try:
        await wire.trip(statements)
    except psycopg.Error:
        if wire.tag != _COMMITTED:
            commit.begun = wire.begun == len(statements)
            raise


async def _roll_back(wire: Wire) -> None:
    """A connection on which that cannot be done is closed, which does it too."""
    if wire.closed or wire.state == TransactionStatus.IDLE:
        return
    if wire.state not in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        wire.close()
        return
    try:
        await wire.trip([_ROLLBACK])
    except psycopg.Error as error:
        wire.close(error)
