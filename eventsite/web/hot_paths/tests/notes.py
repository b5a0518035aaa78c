"""A table of numbers, written on the event loop by round trips of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import psycopg
import uvloop
from django.db import connection

from eventsite.web.hot_paths.session import Session
from outbox.database.round_trips import Change, RoundTrip, Row, Steps

__all__ = ["ADD", "WAIT_AT_COMMIT", "adding", "execute", "run", "stored"]

ADD = "INSERT INTO notes VALUES (%s::int)"
WAIT_AT_COMMIT = """
    CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN {body}; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON notes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()
"""


def execute(sql: str) -> list[Row]:
    """On a connection of its own."""
    given = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    known = {name: given[name] for name in names if name in given}
    with psycopg.connect(**known, autocommit=True) as other:
        cursor = other.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def stored() -> list[int]:
    return [number for (number,) in execute("SELECT number FROM notes ORDER BY number")]


def adding(*trips: Sequence[int], told: list[str] | None = None) -> Steps[str]:
    """A note for each number, each sequence in a round trip of its own."""
    on_commit = None if told is None else lambda: told.append("committed")
    writing = [RoundTrip([(ADD, (number,)) for number in numbers], on_commit) for numbers in trips]
    while len(writing) > 1:
        yield writing.pop(0)
    return Change(["done"], *writing)


def run(
    scenario: Callable[[Session], Coroutine[Any, Any, None]],
    make_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> None:
    async def whole() -> None:
        session = Session()
        try:
            await asyncio.wait_for(scenario(session), 20)
        finally:
            await session.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(whole())
