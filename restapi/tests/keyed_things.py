"""Commands with idempotency keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection

from outbox.database.round_trips import Change
from restapi.answers import Answer
from restapi.context import CURRENT_CALLER
from restapi.idempotency import (
    IdempotencyKey,
    Keyed,
    key_of_headers,
    perform_once,
)

__all__ = ["REPLAYED", "Things", "age", "held_elsewhere", "key"]

REPLAYED = ((b"idempotent-replayed", b"true"),)


def key(
    text: str = "k", *, body: str = "{}", caller: str = "anonymous", endpoint: str = "POST /things"
) -> IdempotencyKey:
    token = CURRENT_CALLER.set(caller)
    try:
        headers = [(b"idempotency-key", text.encode())]
        found = key_of_headers(headers, endpoint=endpoint, body=body.encode())
    finally:
        CURRENT_CALLER.reset(token)
    assert found is not None
    return found


class Things:
    """Commands are numbers; what is done is written down, and a negative one is refused."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def write(self, numbers: Sequence[int]) -> Change[int]:
        assert connection.in_atomic_block
        assert numbers
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        self.done += numbers
        return Change([number * number for number in numbers])

    def answer(self, number: int, square: int) -> tuple[int, dict[str, Any]]:
        return 201, {"number": number, "square": square, "turn": len(self.done)}

    def perform(self, *requests: tuple[int, IdempotencyKey | None]) -> Sequence[Answer]:
        keyed = [Keyed(number, key) for number, key in requests]
        return perform_once(keyed, write=self.write, answer=self.answer)


@contextmanager
def held_elsewhere(*keys: IdempotencyKey) -> Iterator[psycopg.Connection]:
    """Another session holds the locks of these keys."""
    given = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(**{name: given[name] for name in names if name in given}) as other:
        for each in keys:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [each.lock])
        yield other


# For how long


def age(hours: float, *keys: IdempotencyKey) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => %s)"
            " WHERE id = ANY(%s::uuid[])",
            [hours * 3600, [each.id for each in keys]],
        )
