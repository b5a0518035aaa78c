"""What a page of the admin costs: the rows that PostgreSQL touches to answer it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from outbox.admin import readonly, search

__all__ = [
    "COUNT",
    "ROWS_SHOWN",
    "Visit",
    "assert_every_page_is_bounded",
    "fill",
    "log_in",
    "rows_touched",
    "visit",
]

COUNT = 20_000  # rows of a filled table
ROWS_SHOWN = 1_000  # in these tests: what is shown must be a small part of what there is
# Tables that do not grow with the events: read as a whole as soon as they have been analyzed.
OF_DJANGO = ("auth_", "django_content_type", "django_session")


@dataclass(frozen=True)
class Visit:
    """One GET: its answer, and the most rows that any of its queries touched."""

    status: int
    text: str
    rows: int
    sql: str


def log_in() -> Client:
    """A client with every permission there is."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


def fill(monkeypatch: pytest.MonkeyPatch, tables: str, *statements: str) -> None:
    """Fill tables with twenty times as many rows as a page may then touch.

    `statements` run as they are, `tables` is what ANALYZE is told.
    """
    monkeypatch.setattr(readonly, "ROWS_SHOWN", ROWS_SHOWN)
    monkeypatch.setattr(search, "ROWS_SEARCHED", ROWS_SHOWN)
    with connection.cursor() as cursor:
        for statement in (*statements, f"ANALYZE {tables}"):
            cursor.execute(statement)


def assert_every_page_is_bounded(client: Client, pages: Iterable[str]) -> None:
    """Each answers 200, and none of its queries touches more rows than may be shown."""
    for page in pages:
        seen = visit(client, page)
        assert seen.status == 200, page
        assert seen.rows <= ROWS_SHOWN, (page, seen.sql)


def visit(client: Client, path: str) -> Visit:
    """GET a page, then ask the plan of each of its queries."""
    with CaptureQueriesContext(connection) as captured:
        response = client.get(path)
    statements = [query["sql"] for query in captured if query["sql"].startswith("SELECT")]
    rows, sql = max((rows_touched(statement), statement) for statement in statements)
    return Visit(response.status_code, response.content.decode(), rows, sql)


def rows_touched(sql: str) -> int:
    """Rows read from tables, whether they were kept or thrown away."""
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.replace("%", "%%"), ())
        [[plan]] = [json.loads(row[0]) if isinstance(row[0], str) else row[0] for row in cursor]
    return int(sum(_rows(node) for node in _nodes(plan["Plan"]) if _counts(node)))


def _counts(node: dict[str, Any]) -> bool:
    return not str(node.get("Relation Name", OF_DJANGO[0])).startswith(OF_DJANGO)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _rows(node: dict[str, Any]) -> float:
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows = float(node["Actual Rows"]) + sum(float(node.get(name, 0)) for name in removed)
    return rows * float(node["Actual Loops"])
