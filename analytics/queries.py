"""Reading the figures, what is not folded yet included.

A few figures by name are read from the view `sales_figures`. Who wants the first of many must not
have all of them added up: those queries take as many folded ones as are wanted, by index, and put
the additions to them, of which there are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import connection

from analytics.models import MetricName, SalesFigure

__all__ = [
    "STATUSES",
    "Figure",
    "Summary",
    "revenue_per_day",
    "sales_metrics",
    "summary",
    "top_products",
]

STATUSES = ("CREATED", "PAID", "SHIPPED", "CANCELLED")
MINUTES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures a person asks for first; `per_minute` has the last 60, zeros included."""

    orders_total: int
    revenue_total: Decimal
    by_status: dict[str, int]
    per_minute: Sequence[tuple[str, int]]
    top_products: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A row as the API shows it."""

    metric_name: str
    dimension: str
    value: Decimal
    updated_at: datetime


def summary(*, now: datetime) -> Summary:
    """One read of each group of figures, by primary key."""
    minutes = [
        (now - timedelta(minutes=back)).strftime("%Y-%m-%dT%H:%M")
        for back in reversed(range(MINUTES))
    ]
    totals = _values(MetricName.ORDERS_TOTAL, ["all", *STATUSES])
    counts = _values(MetricName.ORDERS_PER_MINUTE, minutes)
    return Summary(
        orders_total=int(totals.get("all", 0)),
        revenue_total=_values(MetricName.REVENUE_TOTAL, ["all"]).get("all", Decimal(0)),
        by_status={status: int(totals.get(status, 0)) for status in STATUSES},
        per_minute=[(minute, int(counts.get(minute, 0))) for minute in minutes],
        top_products=top_products(limit=10),
    )


def revenue_per_day(*, now: datetime, days: int) -> Sequence[tuple[str, Decimal]]:
    """(YYYY-MM-DD, revenue) of the last days in UTC, today the last, zeros included."""
    wanted = [f"{now - timedelta(days=back):%Y-%m-%d}" for back in reversed(range(days))]
    revenues = _values(MetricName.REVENUE_TOTAL, wanted)
    return [(day, revenues.get(day, Decimal(0))) for day in wanted]


def _values(metric: MetricName, dimensions: Sequence[str]) -> dict[str, Decimal]:
    rows = SalesFigure.objects.filter(metric_name=metric, dimension__in=dimensions)
    return dict(rows.values_list("dimension", "value"))


# What is not folded yet: one row for each figure that a chunk adds to.
_ADDITIONS = """
    sales_additions, unnest(metric_names, dimensions, "values") AS part (metric_name, dimension, value)
"""

_TOP_PRODUCTS = f"""
    WITH added AS MATERIALIZED (
        SELECT dimension, sum(value) AS value FROM {_ADDITIONS}
        WHERE metric_name = %(metric)s
        GROUP BY 1
    )
    SELECT dimension, value FROM (
        (SELECT dimension, value FROM sales_metrics folded
         WHERE metric_name = 'top_products' AND value > 0
           AND NOT EXISTS (SELECT FROM added WHERE added.dimension = folded.dimension)
         ORDER BY value DESC, dimension LIMIT %(limit)s)
        UNION ALL
        SELECT added.dimension, added.value + coalesce(folded.value, 0)
        FROM added LEFT JOIN sales_metrics folded
                          ON folded.metric_name = %(metric)s AND folded.dimension = added.dimension
    ) product (dimension, value)
    WHERE value > 0 ORDER BY value DESC, dimension LIMIT %(limit)s
"""


def top_products(*, limit: int) -> Sequence[tuple[str, int]]:
    """(product id, units), the most sold first; products whose orders were all cancelled are left out."""
    with connection.cursor() as cursor:
        cursor.execute(_TOP_PRODUCTS, {"metric": str(MetricName.TOP_PRODUCTS), "limit": limit})
        return [(product, int(units)) for product, units in cursor.fetchall()]


# A folded figure behind the first ones may come with its additions alone, hence with a wrong value;
# but then it stands behind as many others and is cut off.
_METRICS = f"""
    SELECT metric_name, dimension, sum(value)::numeric(30, 2) AS value,
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
    with connection.cursor() as cursor:
        cursor.execute(_METRICS.format(wanted=wanted), {**given, "limit": limit})
        return [Figure(*row) for row in cursor.fetchall()]
