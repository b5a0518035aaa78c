"""libpq on the event loop: statements out, their rows back, one wake-up for both.

psycopg's connections wait for each statement of a pipeline to be sent: more than half of what a write
costs. Here libpq's pipeline mode is driven by itself, as its manual shows
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html), through psycopg's wrapper of it
(https://www.psycopg.org/psycopg3/docs/api/pq.html)."""

from __future__ import annotations

import asyncio
import itertools
import re
import select
from collections import deque
from collections.abc import Callable, Sequence

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

from outbox.database.errors import LOST
from outbox.database.round_trips import Row, Statement

__all__ = ["Wire"]

_FAILED = pq.ExecStatus.FATAL_ERROR
_SKIPPED = pq.ExecStatus.PIPELINE_ABORTED  # behind one that has failed
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_ROWS = pq.ExecStatus.TUPLES_OK
_PERCENT = re.compile("%[%s]")
_DONE = (pq.ExecStatus.COMMAND_OK, _ROWS)


class Wire:
    """A connection in pipeline mode that belongs to one event loop and one user at a time.

    Statements are prepared the first time. Parameters travel as text, so each has a cast or stands
    where PostgreSQL knows its type; rows come as psycopg reads them.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._reads = Transformer(connection)
        self._prepared: dict[str, bytes] = {}
        self._names = 0
        self._answer: asyncio.Future[list[Sequence[Row]]] | None = None
        # Of each result to come: the statement that it has prepared, None if it has rows.
        self._expected: deque[str | None] = deque()
        self._preparing: dict[str, bytes] = {}
        self._rows: list[Sequence[Row]] = []
        self._error: psycopg.Error | None = None
        self._libpq.enter_pipeline_mode()
        self._socket = self._libpq.socket
        self._more = select.poll()
        self._more.register(self._socket, select.POLLIN | select.POLLRDHUP)
        self._loop.add_reader(self._socket, self._readable)
        self.closed = False
        # Of the last trip: how many statements the server may have begun, and what it has said of
        # the last one that it has done.
        self.begun = 0
        self.tag: bytes | None = None

    def is_alive(self) -> bool:
        """Whether it can be asked something, as far as can be known without asking: its end may
        have come while the loop was busy."""
        if not self.closed and self._more.poll(0):
            self._readable()
        return not self.closed

    @property
    def state(self) -> pq.TransactionStatus:
        """Of the transaction; ACTIVE or UNKNOWN: whatever was asked has not been answered."""
        return pq.TransactionStatus(self._libpq.transaction_status)

    async def trip(
        self, statements: Sequence[Statement], meanwhile: Callable[[], None] | None = None
    ) -> list[Sequence[Row]]:
        """The rows of each statement, in one round trip. Without BEGIN they are one transaction.
        `meanwhile` is called before it is waited for.

        Raises psycopg.Error: the first of them that fails, or that the connection is lost. Whatever
        else breaks it off, a cancellation for one, closes it. A parameter that is no UTF-8 is a
        UnicodeEncodeError, one with a NUL a DataError, and nothing is sent.
        """
        self.begun, self.tag = 0, None
        if self.closed:
            raise psycopg.OperationalError("The connection is closed.")
        encoded = [(sql, _encoded(parameters)) for sql, parameters in statements]
        answer: asyncio.Future[list[Sequence[Row]]] = self._loop.create_future()
        self._answer = answer
        self._rows, self._error = [], None
        self._expected.clear()
        self._preparing.clear()
        self.begun = len(encoded)
        try:
            self._send(encoded)
            if meanwhile is not None:
                meanwhile()
            return await answer
        except psycopg.Error:
            raise
        except BaseException:  # the next caller must not receive these answers
            self.close()
            raise

    def close(self, error: psycopg.Error | None = None) -> None:
        """Say goodbye to the server; waiting callers get the error."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._libpq.finish()
        # What the server has said before is the reason.
        self._tell(self._error or error or psycopg.OperationalError("The connection was closed."))

    def _send(self, statements: Sequence[tuple[str, Sequence[bytes | None]]]) -> None:
        try:
            for sql, parameters in statements:
                self._put(sql, parameters)
            self._libpq.pipeline_sync()
            if self._libpq.flush():  # longer than the socket takes
                self._loop.add_writer(self._socket, self._writable)
        except psycopg.Error as error:
            self.close(error)
        except Exception as error:  # noqa: BLE001  (COMMIT may be on its way)
            self.close(psycopg.OperationalError(f"It could not be sent: {error!r}"))

    def _put(self, sql: str, parameters: Sequence[bytes | None]) -> None:
        name = self._prepared.get(sql) or self._preparing.get(sql)
        if name is None:
            self._names += 1
            name = self._preparing[sql] = b"hot_%d" % self._names
            self._libpq.send_prepare(name, _numbered(sql).encode())
            self._expected.append(sql)
        self._libpq.send_query_prepared(name, parameters)
        self._expected.append(None)

    def _writable(self) -> None:
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self.close(error)

    def _readable(self) -> None:
        """Take what has come, until there is nothing more. uvloop does not call again after a reset,
        so it may not be left to the next call to find the end behind the last words."""
        try:
            ready = True
            while ready and not self.closed:
                self._libpq.consume_input()
                while self._answer is not None and not self._libpq.is_busy():
                    if self._libpq.status != pq.ConnStatus.OK:  # it would say "no result" for ever
                        raise psycopg.OperationalError("The connection has failed.")
                    result = self._libpq.get_result()
                    if result is not None:  # else: that was all of one statement
                        self._take(result)
                ready = bool(self._more.poll(0))
        except psycopg.OperationalError as error:
            self.close(error)
        except Exception as error:  # noqa: BLE001  (who waits may not wait for ever)
            self.close(psycopg.OperationalError(f"The answer could not be read: {error!r}"))

    def _take(self, result: pq.abc.PGresult) -> None:
        status = result.status
        if status == _SYNC:
            self._tell(self._error)
        elif status == _FAILED and self._error is None:
            self._error = errors.error_from_result(result)
            # Else libpq or a pooler says that it has lost the connection, and not where.
            if self._error.sqlstate and not self._error.sqlstate.startswith(LOST):
                self.begun = min(self.begun, len(self._rows) + 1)
        elif status in _DONE:
            prepared = self._expected.popleft()
            if prepared is not None:
                self._prepared[prepared] = self._preparing[prepared]
            else:
                self._rows.append(self._loaded(result) if status == _ROWS else [])
                self.tag = result.command_status
        elif status not in (_FAILED, _SKIPPED) or self._error is None:
            raise ValueError(f"status {status}")

    def _loaded(self, result: pq.abc.PGresult) -> Sequence[Row]:
        self._reads.set_pgresult(result)
        return self._reads.load_rows(0, result.ntuples, tuple)

    def _tell(self, error: psycopg.Error | None) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(self._rows)


def _numbered(sql: str) -> str:
    """The statement with PostgreSQL's own placeholders; %% is a percent sign, as with psycopg."""
    places = itertools.count(1)
    return _PERCENT.sub(lambda found: "%" if found[0] == "%%" else f"${next(places)}", sql)


def _encoded(parameters: Sequence[str | int | None]) -> list[bytes | None]:
    encoded = [None if value is None else str(value).encode() for value in parameters]
    if any(value is not None and b"\0" in value for value in encoded):
        raise psycopg.DataError(
            "A text has a NUL character, which PostgreSQL cannot store."
        )  # libpq would end them there
    return encoded
