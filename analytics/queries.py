"""Reading the figures, what is not folded yet included. Figures that stand side by side come from one
statement; the wanted folded figures are read by index, and the few open additions are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from analytics.models import MetricName
from outbox.database.ask import rows_of

__all__ = [
    "STATUSES",
    "Figure",
    "SalesFigures",
    "sales_metrics",
    "summary",
    "top_products",
]

STATUSES = ("CREATED", "PAID", "SHIPPED", "CANCELLED")
MINUTES = 60
PRODUCTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesFigures:
    """The figures a person asks for first, of one moment. `per_minute` has the last 60, zeros included;
    `per_day` the revenue of each of the last days that were asked for, today the last."""

    orders_total: int
    revenue_total: Decimal
    by_status: dict[str, int]
    per_minute: Sequence[tuple[str, int]]
    top_products: Sequence[tuple[str, int]]
    per_day: Sequence[tuple[str, Decimal]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A row as the API shows it."""

    metric_name: str
    dimension: str
    value: Decimal
    updated_at: datetime


def summary(*, now: datetime, days: int = 0) -> SalesFigures:
    """With (YYYY-MM-DD, revenue) of the last `days` in UTC, zeros included: one statement, hence one
    snapshot, in which every order counts in all figures or in none."""
    minutes = [
        (now - timedelta(minutes=back)).strftime("%Y-%m-%dT%H:%M")
        for back in reversed(range(MINUTES))
    ]
    dates = [f"{now - timedelta(days=back):%Y-%m-%d}" for back in reversed(range(days))]
    found, products = _figures(
        [
            *((MetricName.ORDERS_TOTAL, dimension) for dimension in ("all", *STATUSES)),
            *((MetricName.ORDERS_PER_MINUTE, minute) for minute in minutes),
            *((MetricName.REVENUE_TOTAL, dimension) for dimension in ("all", *dates)),
        ],
        products=PRODUCTS,
    )
    return SalesFigures(
        orders_total=int(found[MetricName.ORDERS_TOTAL, "all"]),
        revenue_total=found[MetricName.REVENUE_TOTAL, "all"],
        by_status={status: int(found[MetricName.ORDERS_TOTAL, status]) for status in STATUSES},
        per_minute=[
            (minute, int(found[MetricName.ORDERS_PER_MINUTE, minute])) for minute in minutes
        ],
        top_products=products,
        per_day=[(date, found[MetricName.REVENUE_TOTAL, date]) for date in dates],
    )


# What is not folded yet: one row for each figure that a chunk adds to.
_ADDITIONS = """
    sales_additions, unnest(metric_names, dimensions, "values") AS part (metric_name, dimension, value)
"""

_ADDED = f"""
    added AS MATERIALIZED (
        SELECT metric_name, dimension, sum(value) AS value FROM {_ADDITIONS} GROUP BY 1, 2
    )"""

_TOP_PRODUCTS = """
    product AS (
        SELECT dimension, value FROM (
            (SELECT dimension, value FROM sales_metrics folded
             WHERE metric_name = 'top_products' AND value > 0
               AND NOT EXISTS (SELECT FROM added WHERE added.metric_name = 'top_products'
                                                   AND added.dimension = folded.dimension)
             ORDER BY value DESC, dimension LIMIT %(products)s)
            UNION ALL
            SELECT added.dimension, added.value + coalesce(folded.value, 0)
            FROM added LEFT JOIN sales_metrics folded
                              ON folded.metric_name = 'top_products'
                             AND folded.dimension = added.dimension
            WHERE added.metric_name = 'top_products'
        ) either (dimension, value)
        WHERE value > 0 ORDER BY value DESC, dimension LIMIT %(products)s
    )"""

# A subquery for each figure that is asked for, hence a look into the primary key: for a join
# PostgreSQL may read all figures.
_FIGURES = f"""
    WITH {_ADDED}, {_TOP_PRODUCTS}
    SELECT NULL AS place, metric_name, dimension,
           coalesce((SELECT value FROM sales_metrics folded
                     WHERE folded.metric_name = asked.metric_name
                       AND folded.dimension = asked.dimension), 0) + coalesce(added.value, 0)
    FROM unnest(%(metrics)s::text[], %(dimensions)s::text[]) AS asked (metric_name, dimension)
    LEFT JOIN added USING (metric_name, dimension)
    UNION ALL
    SELECT row_number() OVER (ORDER BY value DESC, dimension), 'top_products', dimension, value
    FROM product
"""


def _figures(
    asked: Sequence[tuple[str, str]], *, products: int
) -> tuple[dict[tuple[str, str], Decimal], Sequence[tuple[str, int]]]:
    """Figures by name, 0 where there is none, and the most sold products, of one snapshot."""
    parameters: dict[str, Any] = {
        "metrics": [str(metric) for metric, _ in asked],
        "dimensions": [dimension for _, dimension in asked],
        "products": products,
    }
    rows = rows_of(_FIGURES, parameters)
    ranked = sorted(row for row in rows if row[0] is not None)
    return (
        {(metric, dimension): value for place, metric, dimension, value in rows if place is None},
        [(product, int(units)) for _, _, product, units in ranked],
    )


def top_products(*, limit: int) -> Sequence[tuple[str, int]]:
    """(product id, units), the most sold first; products whose orders were all cancelled are left out."""
    return _figures([], products=limit)[1]


# A folded figure behind the first ones may come with its additions alone, hence with a wrong value;
# but then it stands behind as many others and is cut off.
_METRICS = f"""
    SELECT metric_name, dimension, sum(value) AS value,
           max(updated_at) AS updated_at
    FROM (
        (SELECT metric_name, dimension, value, updated_at FROM sales_metrics
         WHERE {{wanted}} ORDER BY metric_name, dimension LIMIT %(limit)s)
        UNION ALL
        SELECT metric_name, dimension, value, written_at FROM {_ADDITIONS}
        WHERE {{wanted}}
    ) parts
    GROUP BY metric_name, dimension ORDER BY metric_name, dimension LIMIT %(limit)s
"""


def sales_metrics(
    *, metric_name: str | None, dimension: str | None, limit: int
) -> Sequence[Figure]:
    """Figures by name and dimension, in the order of the primary key."""
    asked = {"metric_name": metric_name, "dimension": dimension}
    given = {name: value for name, value in asked.items() if value is not None}
    wanted = " AND ".join(f"{name} = %({name})s" for name in given) or "true"
    return [
        Figure(*row) for row in rows_of(_METRICS.format(wanted=wanted), {**given, "limit": limit})
    ]
