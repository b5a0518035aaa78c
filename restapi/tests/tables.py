"""What is stored: counted, for tests that say what a failure must not have left behind, and whole,
for those that compare two ways to the same rows."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from django.db import connection

__all__ = ["row_counts", "rows_in_words", "without_made_up"]

# What processes write by themselves, at any time.
OF_PROCESSES = {"feed_nodes"}
_MADE_UP = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"  # a UUID that grows with time
    r"|\b\d{17,19}\b"  # an id of a post
    r'|(?<=timestamp\\":)\d{10}\b'  # Unix seconds of an event
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"
    r"|00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"  # a traceparent
)
_BYTES = re.compile(r"\\\\x((?:[0-9a-f]{2})+)")


def row_counts() -> dict[str, int]:
    """Rows of every table of the project, by table."""
    return dict(_of_every_table("count(*)"))


def rows_in_words() -> Counter[tuple[str, str]]:
    """Every row of our own tables as table and JSON, how often it is there. Without what is drawn
    for each, the number of a row and an event's lane, and without `seq`: the web processes number the
    rows of a status log by themselves, at any time after COMMIT."""
    rows = _of_every_table(
        "CASE jsonb_typeof(to_jsonb(t) -> 'id')"
        " WHEN 'number' THEN to_jsonb(t) - 'id' - 'lane' - 'seq' ELSE to_jsonb(t) END::text"
    )
    return Counter((table, str(row)) for table, row in rows if not _is_of_django(table))


def without_made_up(rows: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same with "?" for every id, time and trace that is created again for each request, sorted."""
    return sorted(
        (table, _MADE_UP.sub("?", _BYTES.sub(_as_text, row))) for table, row in rows.elements()
    )


def _as_text(found: re.Match[str]) -> str:
    return bytes.fromhex(found[1]).decode()


def _is_of_django(table: str) -> bool:
    return table.startswith(("auth_", "django_"))


def _of_every_table(expression: str) -> list[tuple[str, Any]]:
    found = set(connection.introspection.django_table_names(include_views=False))
    tables = sorted(found - OF_PROCESSES)
    selects = " UNION ALL ".join(
        f"SELECT '{table}', {expression} FROM {table} t" for table in tables
    )
    with connection.cursor() as cursor:
        cursor.execute(selects)
        return list(cursor.fetchall())
