"""The sales at a glance: headline figures and charts, drawn by the server as SVG. Every number is read
by its primary key, and the best sellers by an index of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from analytics import queries
from analytics.admin.charts import BarChart, ChartReading, bar_chart, parts_of
from analytics.models import SalesOverview
from analytics.queries import SalesFigures
from outbox.admin.readonly import ReadOnlyAdmin
from outbox.envelope import rfc3339

__all__ = ["SalesOverviewAdmin"]

DAYS = 30
MINUTES_A_TICK = 10
DAYS_A_TICK = 10
# Nothing of the page is inline, and nothing comes from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """A chart with what is said of it; `empty` is said in its place when there is nothing."""

    name: str
    title: str
    note: str
    description: str
    empty: str
    head: tuple[str, str]
    chart: BarChart

    @property
    def readings(self) -> Sequence[ChartReading]:
        return [bar.reading for bar in self.chart.bars]


@admin.register(SalesOverview)
class SalesOverviewAdmin(ReadOnlyAdmin):
    """One page; whoever may view it sees it in the admin's index."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="analytics_salesoverview_changelist")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """The page. It says itself that nothing but its own files may be loaded."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        now = timezone.now()
        figures = queries.summary(now=now, days=DAYS)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Sales at a glance",
            "as_of": rfc3339(now),
            "empty": not figures.orders_total,
            "headlines": _headlines(figures),
            "statuses": parts_of(list(figures.by_status.items())),
            "minutes": _minutes(figures),
            "days": _days(figures.per_day),
            "products": _products(figures.top_products),
        }
        response = TemplateResponse(request, "admin/analytics/overview.html", context)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


def _headlines(figures: SalesFigures) -> list[tuple[str, str, str]]:
    """(name, figure, what it is of)"""
    cancelled = figures.by_status["CANCELLED"]
    counting = figures.orders_total - cancelled
    average = figures.revenue_total / counting if counting > 0 else Decimal(0)
    last_hour = sum(count for _, count in figures.per_minute)
    return [
        ("Orders", f"{figures.orders_total:,}", "ever placed"),
        ("Revenue", _money(figures.revenue_total), "of orders not cancelled"),
        ("Average order", _money(average), "not cancelled"),
        ("Last hour", f"{last_hour:,}", "orders placed"),
    ]


def _money(value: Decimal) -> str:
    return f"{value:,.2f}"


def _minutes(figures: SalesFigures) -> _Series:
    last = len(figures.per_minute) - 1
    readings = [
        ChartReading(
            label=f"{minute[11:]} UTC",
            value=count,
            words=f"{count:,} {'order' if count == 1 else 'orders'}",
            tick=minute[11:] if int(minute[14:]) % MINUTES_A_TICK == 0 else "",
            partial=index == last,
        )
        for index, (minute, count) in enumerate(figures.per_minute)
    ]
    total = sum(count for _, count in figures.per_minute)
    return _Series(
        name="minutes",
        title="Orders a minute",
        note="the last 60 minutes, UTC; the last bar is still growing",
        description=_described(readings, f"{total:,} orders in 60 minutes"),
        empty="No orders in the last hour.",
        head=("Minute", "Orders"),
        chart=bar_chart(readings),
    )


def _days(days: Sequence[tuple[str, Decimal]]) -> _Series:
    last = len(days) - 1
    readings = [
        ChartReading(
            label=day,
            value=revenue,
            words=_money(revenue),
            tick=f"{datetime.fromisoformat(day):%-d %b}" if (last - i) % DAYS_A_TICK == 0 else "",
            partial=i == last,
        )
        for i, (day, revenue) in enumerate(days)
    ]
    total = sum((revenue for _, revenue in days), Decimal(0))
    return _Series(
        name="days",
        title="Revenue a day",
        note=f"the last {DAYS} days, UTC, by the day of creation, cancellations taken off; "
        "the last bar is today",
        description=_described(readings, f"{_money(total)} in {DAYS} days"),
        empty=f"No revenue in the last {DAYS} days.",
        head=("Day", "Revenue"),
        chart=bar_chart(readings),
    )


def _described(readings: Sequence[ChartReading], total: str) -> str:
    highest = max(readings, key=lambda reading: reading.value)
    return f"{total}; the most, {highest.words}, at {highest.label}."


def _products(products: Sequence[tuple[str, int]]) -> list[tuple[str, str, str]]:
    """(product, units, width of its bar in percent of the best seller's)"""
    best = max((units for _, units in products), default=1)
    return [(name, f"{units:,}", f"{100 * units / best:.2f}%") for name, units in products]
