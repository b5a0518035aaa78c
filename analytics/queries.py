"""Reading the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from analytics.models import MetricName, SalesMetric

__all__ = [
    "STATUSES",
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
    rows = SalesMetric.objects.filter(metric_name=metric, dimension__in=dimensions)
    return dict(rows.values_list("dimension", "value"))


def top_products(*, limit: int) -> Sequence[tuple[str, int]]:
    """(product id, units), the most sold first; products whose orders were all cancelled are left out."""
    rows = SalesMetric.objects.filter(metric_name=MetricName.TOP_PRODUCTS, value__gt=0)
    pairs = rows.order_by("-value", "dimension").values_list("dimension", "value")[:limit]
    return [(product, int(units)) for product, units in pairs]


def sales_metrics(
    *, metric_name: str | None, dimension: str | None, limit: int
) -> Sequence[SalesMetric]:
    """Figures by name and dimension, in the order of the primary key."""
    rows = SalesMetric.objects.all()
    if metric_name is not None:
        rows = rows.filter(metric_name=metric_name)
    if dimension is not None:
        rows = rows.filter(dimension=dimension)
    return list(rows.order_by("metric_name", "dimension")[:limit])
