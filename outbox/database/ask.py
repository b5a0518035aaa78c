"""One statement on Django's connection, in the open transaction, else in one of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

__all__ = ["changed_by", "row_of", "rows_of"]

Parameters = Sequence[Any] | Mapping[str, Any]


def rows_of(sql: str, parameters: Parameters | None = None) -> list[Any]:
    """Its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[Any] = cursor.fetchall()
    return rows


def row_of(sql: str, parameters: Parameters | None = None) -> Any:
    """Its first row; None: there is none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


def changed_by(sql: str, parameters: Parameters | None = None) -> int:
    """How many rows it has written or deleted."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
