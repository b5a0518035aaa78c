"""psycopg's connection with the patience of the work that uses it (outbox/database/patience.py)."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen, PQGenConn
from psycopg.errors import ConnectionTimeout, _WaitTimeout

from outbox.database import patience

__all__ = ["PatientConnection"]

Value = TypeVar("Value")


class PatientConnection(psycopg.Connection[Any]):
    """Each wait of a connection, for a statement, COMMIT or a pipeline, goes through `wait`."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> PatientConnection:
        """As psycopg's. Raises Unanswered when `connect_timeout` or the time of the work is over."""
        try:
            connection = super().connect(*args, **kwargs)
        except ConnectionTimeout as error:
            raise patience.give_up("connect") from error
        patience.note_answer()
        return connection

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Any]:
        """psycopg grants `connect_timeout`, two seconds at least, to each address of a host. It
        resumes this every tenth of a second."""
        attempt = super()._connect_gen(conninfo)
        try:
            wanted = next(attempt)
            while True:
                ready = yield wanted
                left = patience.left()
                if left is not None and left <= 0:
                    raise ConnectionTimeout("The time limit of the work has passed.")
                wanted = attempt.send(ready)
        except StopIteration as end:
            return end.value
        finally:
            attempt.close()

    def wait(self, gen: PQGen[Value], interval: float = 0.1, timeout: float | None = None) -> Value:
        """As psycopg's. Raises Unanswered, the connection closed, when the time is over."""
        left = patience.left()
        if left is None or (timeout is not None and timeout < left):
            return super().wait(gen, interval, timeout)
        if left <= 0:  # nothing is sent any more
            gen.close()
        else:
            try:
                return super().wait(gen, interval, left)
            except _WaitTimeout:
                pass
        # Cancelling the statement would need an answer of the server, which does not answer.
        self.pgconn.finish()
        raise patience.give_up("answer")
