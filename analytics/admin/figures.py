"""The pages of the sales figures: each of them, and what could not be added to one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from analytics.models import MetricName, SalesMetricListing, SetAsideFigure
from outbox.admin.readonly import ReadOnlyAdmin, utc

__all__ = ["SalesMetricAdmin", "SetAsideFigureAdmin"]


@admin.register(SalesMetricListing)
class SalesMetricAdmin(ReadOnlyAdmin):
    """In the order of the primary key; the best sellers first when only products are shown.

    The listing's id is put together by a view and has no index: nothing here asks for it.
    """

    list_filter = ("metric_name",)
    list_display = ("metric_name", "dimension", "value", "foreign_value", utc("updated_at"))
    search_fields = ("dimension",)
    search_help_text = "Dimension, whole: all, a status, a day, a minute or a product id"

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Index sales_metrics_top_products, or that of the primary key."""
        if request.GET.getlist("metric_name__exact") == [MetricName.TOP_PRODUCTS]:
            return ("-value", "dimension")
        return ("metric_name", "dimension")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Naming every metric makes it four looks into the primary key, on any PostgreSQL."""
        if not search_term:
            return queryset, False
        return queryset.filter(metric_name__in=MetricName.values, dimension=search_term), False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> SalesMetricListing | None:
        metric_name, _, dimension = object_id.partition(":")
        return SalesMetricListing.objects.filter(
            metric_name=metric_name, dimension=dimension
        ).first()


@admin.register(SetAsideFigure)
class SetAsideFigureAdmin(ReadOnlyAdmin):
    """The newest first; docs/operations.md says what an operator does about them."""

    ordering = ("-id",)
    list_display = ("metric_name", "shown", "value", "is_foreign", "error", utc("set_aside_at"))

    @admin.display(description="dimension")
    def shown(self, row: SetAsideFigure) -> str:
        """Its beginning: a name may be what was too long."""
        return row.dimension if len(row.dimension) <= 80 else f"{row.dimension[:80]}…"
