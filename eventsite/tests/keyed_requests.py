"""Requests with an idempotency key, and a COMMIT that waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from django.db import connection

from devtools.testing.web import Answer, Web

__all__ = [
    "HELD",
    "ORDER",
    "OTHER",
    "SIMPLE",
    "WAYS",
    "assert_done",
    "assert_replay",
    "assert_running",
    "commits_held",
    "insisting",
    "is_replay",
    "new_key",
    "post",
    "session",
    "wait_until_held",
]

ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
OTHER = {"customerId": "c2", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
SIMPLE = {"user_id": "u1", "amount": 42.5}
HELD = 4_711  # an advisory lock of this test; a trigger waits for it inside COMMIT
WAYS = ("on", "off")


def new_key() -> str:
    return f"key-{uuid4()}"


def post(web: Web, key: str, body: Mapping[str, Any] = ORDER) -> Answer:
    return web.post("/orders", body, {"Idempotency-Key": key})


def is_replay(answer: Answer) -> bool:
    return answer.header("idempotent-replayed") == "true"


def assert_done(answer: Answer, status: int = 201) -> None:
    assert answer.status == status, answer.body
    assert answer.header("idempotent-replayed") == ""


def assert_replay(answer: Answer, first: Answer) -> None:
    assert is_replay(answer)
    assert (answer.status, answer.body) == (first.status, first.body)
    for name in ("content-type", "content-length", "x-frame-options", "x-content-type-options"):
        assert answer.header(name) == first.header(name)


def assert_running(answer: Answer) -> None:
    assert answer.status == 409, answer.body
    assert answer.json.keys() == {"error", "details"}
    assert int(answer.header("retry-after")) > 0
    assert answer.header("idempotent-replayed") == ""


def insisting(web: Web, key: str, body: Mapping[str, Any] = ORDER) -> Answer:
    """Sends the request again, as clients do, as long as the answer is 409."""
    for _ in range(500):
        answer = post(web, key, body)
        if answer.status != 409:
            return answer
        threading.Event().wait(0.02)
    raise AssertionError("Always 409.")


@contextmanager
def session() -> Iterator[psycopg.Connection]:
    """A second connection to the test database."""
    given = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(
        **{name: given[name] for name in names if name in given}, autocommit=True
    ) as other:
        yield other


@contextmanager
def commits_held() -> Iterator[psycopg.Connection]:
    """Until the end of the block no order's COMMIT gets further than this."""
    with session() as holder:
        holder.execute(f"""
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock_shared({HELD}); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON orders
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()
            """)
        try:
            holder.execute("SELECT pg_advisory_lock(%s)", [HELD])
            try:
                yield holder
            finally:
                holder.execute("SELECT pg_advisory_unlock(%s)", [HELD])
        finally:
            holder.execute("DROP FUNCTION hold CASCADE")


def wait_until_held(holder: psycopg.Connection, count: int = 1) -> None:
    """Until so many transactions stand still; a statement waits at most 5 s for a lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    for _ in range(400):
        [found] = holder.execute(waiting).fetchone() or [0]
        if found >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError("Nobody waits.")
