"""What is stored, counted: for tests that say what a failure must not have left behind."""

from __future__ import annotations

from django.db import connection

__all__ = ["row_counts"]


def row_counts() -> dict[str, int]:
    """Rows of every table of the project, by table."""
    tables = sorted(connection.introspection.django_table_names(include_views=False))
    counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in tables)
    with connection.cursor() as cursor:
        cursor.execute(counts)
        return dict(cursor.fetchall())
