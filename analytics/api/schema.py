"""The analytics API in the OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_view
from rest_framework import serializers

from analytics.api.serializers import MetricsQuery, TopProductsQuery
from analytics.models import MetricName
from restapi.openapi import Moment, Number
from restapi.operations import Operations, answer

__all__ = ["metrics", "summary", "top_products"]

API = Operations("analytics")
PRODUCT = {"product_id": "p1", "units": 1204}


@extend_schema_field({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$"})
class MinuteField(serializers.Field[str, str, str, str]):
    """UTC."""


class StatusCounts(serializers.Serializer[object]):
    """Orders now in each status."""

    CREATED = serializers.IntegerField()
    PAID = serializers.IntegerField()
    SHIPPED = serializers.IntegerField()
    CANCELLED = serializers.IntegerField()


class MinuteCount(serializers.Serializer[object]):
    """Orders created in one minute."""

    minute = MinuteField()
    count = serializers.IntegerField()


class ProductUnits(serializers.Serializer[object]):
    """Units of a product in orders that are not cancelled."""

    product_id = serializers.CharField()
    units = serializers.IntegerField()


class SalesSummary(serializers.Serializer[object]):
    """The figures a person asks for first."""

    orders_total = serializers.IntegerField(
        help_text="All orders that were ever created, cancelled ones included."
    )
    revenue_total = Number(help_text="The revenue of orders that are not cancelled.")
    by_status = StatusCounts()
    orders_per_minute = serializers.ListSerializer[object](
        child=MinuteCount(), min_length=60, max_length=60, help_text="The last 60, zeros included."
    )
    top_products = serializers.ListSerializer[object](
        child=ProductUnits(), max_length=10, help_text="The most sold first."
    )
    as_of = Moment()


class SalesMetricRow(serializers.Serializer[object]):
    """One figure."""

    metric_name = serializers.ChoiceField(MetricName.choices)
    dimension = serializers.CharField(
        help_text="`all`, a status, a day, a minute or a product id, as the metric has it."
    )
    value = Number()
    updated_at = Moment()


SUMMARY = {
    "orders_total": 4000,
    "revenue_total": 182340.5,
    "by_status": {"CREATED": 2480, "PAID": 1320, "SHIPPED": 0, "CANCELLED": 200},
    "orders_per_minute": [
        {"minute": f"2026-03-11T22:{minute:02}", "count": minute * 3} for minute in range(60)
    ],
    "top_products": [PRODUCT],
    "as_of": "2026-03-11T22:59:59.000Z",
}
FIGURE = {
    "metric_name": "revenue_total",
    "dimension": "2026-03-11",
    "value": 42.5,
    "updated_at": "2026-03-11T22:00:00.250Z",
}

summary = extend_schema_view(
    get=API.read(
        "getSalesSummary",
        "The figures a person asks for first",
        answer=answer(SalesSummary, SUMMARY, name="summary"),
    )
)


def _listed(operation_id: str, summary: str, query: type[Any], answered: Any) -> Any:
    """A GET that is answered with an array."""
    return extend_schema_view(
        get=API.read(operation_id, summary, parameters=[query], answer=answered, refuses=[400])
    )


metrics = _listed(
    "listSalesMetrics",
    "Figures by name and dimension",
    MetricsQuery,
    answer(
        SalesMetricRow(many=True),
        FIGURE,
        "An array, by name and dimension.",
        name="revenue of a day",
    ),
)
top_products = _listed(
    "listTopProducts",
    "The best sellers",
    TopProductsQuery,
    answer(ProductUnits(many=True), PRODUCT, "An array, the most sold first.", name="best sellers"),
)
