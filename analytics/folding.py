"""Folding: what chunks have added moves from `sales_additions` into the figures.

A batch that fails is added in halves, down to the single figure that cannot be added: that one is set
aside with its error, and the rest is folded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import structlog
from django.db import DatabaseError, transaction

from analytics import metrics
from analytics.models import SetAsideFigure
from outbox.database.ask import changed_by, row_of, rows_of
from outbox.database.errors import describe, is_transient

__all__ = ["fold_batch", "fold_set_aside", "lock_folds", "measure_set_aside", "set_aside"]

_FOLD_LOCK = 0x464F4C44
ERROR_LENGTH = 500
NAME_SHOWN = 100  # characters of a dimension in a log line

log = structlog.get_logger("analytics.folding")


class _Part(NamedTuple):
    """An addition to one figure. Sorted, so that ours come before those of other producers,
    which may not fit."""

    is_foreign: bool
    metric_name: str
    dimension: str
    value: Decimal
    written_at: datetime


# The oldest rows. One that commits late with a lower id is left to the next fold: it is not seen
# by this one.
_TAKEN = """
    taken AS (
        DELETE FROM sales_additions
        WHERE id <= coalesce(
            (SELECT id FROM sales_additions ORDER BY id OFFSET %s LIMIT 1), 9223372036854775807)
        RETURNING is_foreign, metric_names, dimensions, "values", written_at
    ), part AS (
        SELECT taken.is_foreign, part.metric_name, part.dimension, part.value, taken.written_at
        FROM taken, unnest(metric_names, dimensions, "values")
                        AS part (metric_name, dimension, value)
    )"""

_ADD = """
    INSERT INTO {table} (metric_name, dimension, value, updated_at)
    SELECT metric_name, dimension, sum(value), max(written_at) FROM part
    {where} GROUP BY 1, 2
    ON CONFLICT (metric_name, dimension) DO UPDATE
    SET value = {table}.value + excluded.value,
        updated_at = greatest({table}.updated_at, excluded.updated_at)"""

_ADDED = f"""
    added AS ({_ADD.format(table="sales_metrics", where="")}
    ), added_apart AS ({_ADD.format(table="sales_metrics_foreign", where="WHERE is_foreign")}
    )"""


def fold_batch(size: int) -> int | None:
    """Fold the oldest `size` additions, in a transaction. Returns how many there were, None if
    another process folds. Raises transient errors: a lock, a database that is unavailable."""
    with transaction.atomic():
        [is_ours] = row_of("SELECT pg_try_advisory_xact_lock(%s)", (_FOLD_LOCK,))
        if not is_ours:
            return None
        try:
            with transaction.atomic():
                sql = f"WITH {_TAKEN}, {_ADDED} SELECT count(*) FROM taken"
                return int(row_of(sql, (size - 1,))[0])
        except DatabaseError as error:
            if is_transient(error):
                raise
        return _fold_in_parts(size)


def _fold_in_parts(size: int) -> int:
    rows = rows_of(
        f"""
        WITH {_TAKEN}
        SELECT is_foreign, metric_name, dimension, sum(value), max(written_at),
               (SELECT count(*) FROM taken)
        FROM part GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        (size - 1,),
    )
    _add_parts([_Part(*row[:-1]) for row in rows])
    return int(rows[0][-1]) if rows else 0


def _add_parts(parts: Sequence[_Part]) -> int:
    """Add them, and set aside those that cannot be added; returns how many were set aside."""
    try:
        with transaction.atomic():
            changed_by(
                f"""
                WITH part AS (
                    SELECT * FROM unnest(%s::boolean[], %s::text[], %s::text[], %s::numeric[],
                                         %s::timestamptz[])
                        AS part (is_foreign, metric_name, dimension, value, written_at)
                ), {_ADDED} SELECT
                """,
                [list(column) for column in zip(*parts, strict=True)],
            )
        return 0
    except DatabaseError as error:
        if is_transient(error):
            raise
        if len(parts) == 1:
            _set_aside(parts[0], describe(error))
            return 1
    middle = len(parts) // 2
    return _add_parts(parts[:middle]) + _add_parts(parts[middle:])


def _set_aside(part: _Part, error: str) -> None:
    SetAsideFigure.objects.create(**part._asdict(), error=error[:ERROR_LENGTH])
    log.error(
        "figure_set_aside",
        metric_name=part.metric_name,
        dimension=part.dimension[:NAME_SHOWN],
        value=str(part.value),
        is_foreign=part.is_foreign,
        error=error[:ERROR_LENGTH],
    )


def fold_set_aside() -> tuple[int, int]:
    """Try again what was set aside, once its cause is repaired: (how many were added, how many were
    set aside again). Called by an operator."""
    with transaction.atomic():
        lock_folds()
        rows = rows_of(
            """
            WITH back AS (DELETE FROM sales_set_aside RETURNING *)
            SELECT is_foreign, metric_name, dimension, sum(value), max(written_at)
            FROM back GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
            """
        )
        parts = [_Part(*row) for row in rows]
        failed = _add_parts(parts) if parts else 0
    measure_set_aside()
    return len(parts) - failed, failed


def lock_folds() -> None:
    """Wait for a fold under way, and let none begin until the open transaction ends."""
    row_of("SELECT pg_advisory_xact_lock(%s)", (_FOLD_LOCK,))


def measure_set_aside() -> None:
    """Set the gauge of what waits for an operator."""
    metrics.SET_ASIDE.set(set_aside())


def set_aside() -> int:
    """How many additions wait for an operator; counted up to 10,000."""
    return int(row_of("SELECT count(*) FROM (SELECT FROM sales_set_aside LIMIT 10000) kept")[0])
