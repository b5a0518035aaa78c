"""The business as operators watch it: what is sold, and what is missing in the figures."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils import timezone

from analytics import queries
from analytics.folding import set_aside
from outbox.watching import Hop

__all__ = ["hops"]


def hops() -> Sequence[Hop]:
    """The sales, as far as their events have been applied."""
    sales = queries.summary(now=timezone.now())
    last_hour = sum(count for _, count in sales.per_minute)
    return [
        Hop(
            name="sales",
            group="business",
            done=sales.orders_total,
            unit="orders",
            figures={
                "sales_figures_set_aside": set_aside(),
                "sales_revenue_total": float(sales.revenue_total),
            },
            notes=(
                f"{sales.orders_total:,} orders, {last_hour:,} in the last hour",
                f"revenue {sales.revenue_total:,.2f}",
            ),
            page="/admin/analytics/salesoverview/",
        )
    ]
