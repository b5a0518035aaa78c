"""A second session with the test database: for locks, triggers and the end of other sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection

__all__ = ["other_session"]


@contextmanager
def other_session() -> Iterator[psycopg.Connection]:
    """Each statement commits."""
    settings = connection.get_connection_params()
    with psycopg.connect(
        host=settings["host"],
        port=settings["port"],
        user=settings["user"],
        password=settings.get("password"),
        dbname=settings["dbname"],
        autocommit=True,
    ) as other:
        yield other
