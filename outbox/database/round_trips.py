"""The statements of a change, independent of the connection that sends them (docs/http.md#hot-paths).

A service that reads nothing makes a `Change`, whose statements travel together. What has to ask before
it writes is a generator of round trips."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, TypeVar

import msgspec
from django.db import connection, transaction

__all__ = ["Change", "RoundTrip", "Row", "Statement", "Steps", "drive", "run", "send"]

Result = TypeVar("Result")
Question = TypeVar("Question")
End = TypeVar("End")
# SQL with %s for each parameter, which are casted there: `%s::uuid[]` takes an array literal.
Statement = tuple[str, Sequence[str | int | None]]
Row = tuple[Any, ...]


class RoundTrip(msgspec.Struct, frozen=True):
    """Statements that are sent without waiting for each other, in the open transaction.

    on_commit  called once after COMMIT; what it raises is logged and changes nothing
    meanwhile  may be called, once, while the statements are under way: what can be made ready
               before their rows are there. It must not raise, nor talk to the database
    """

    statements: Sequence[Statement] = ()
    on_commit: Callable[[], None] | None = None
    meanwhile: Callable[[], None] | None = None


class Change(msgspec.Struct, Generic[Result], frozen=True):
    """What a service has decided, and what writes it: nothing is stored until `trip` is sent."""

    results: Sequence[Result]
    trip: RoundTrip = RoundTrip()


# Yields what to ask and is sent the rows of each statement; returns what to write in the end, with
# which COMMIT may travel, because nothing is decided behind it.
Steps = Generator[RoundTrip, Sequence[Sequence[Row]], Change[Result]]


def send(trip: RoundTrip) -> list[Sequence[Row]]:
    """Send it on Django's connection, in the open transaction; the rows of each statement.

    The first error among the statements is raised as Django's.
    """
    cursors = [connection.cursor() for _ in trip.statements]
    with _pipelined() if len(cursors) > 1 else nullcontext():
        for cursor, (sql, parameters) in zip(cursors, trip.statements, strict=True):
            cursor.execute(sql, parameters)
    rows = [cursor.fetchall() if cursor.description else () for cursor in cursors]
    for cursor in cursors:
        cursor.close()
    if trip.on_commit is not None:
        transaction.on_commit(trip.on_commit, robust=True)
    return rows


def run(steps: Steps[Result]) -> Sequence[Result]:
    """All round trips on Django's connection, in the open transaction; the results."""
    change = drive(steps, send)
    send(change.trip)
    return change.results


def drive(steps: Generator[Question, Any, End], answer: Callable[[Question], Any]) -> End:
    """What a generator returns, when each question that it yields is answered so."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(answer(asked))
    except StopIteration as end:
        returned: End = end.value
        return returned


@contextmanager
def _pipelined() -> Iterator[None]:
    """Statements of the block are sent without waiting for each other (PostgreSQL's pipeline mode).

    Their results can be read behind it; the first error among them is raised at the end of the
    block, as the database error it would have been.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield
