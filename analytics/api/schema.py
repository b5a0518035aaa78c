"""The analytics API in the OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework.serializers import CharField, ChoiceField, Field, IntegerField, ListSerializer

from analytics.api.serializers import MetricsQuery, TopProductsQuery
from analytics.models import MetricName
from analytics.queries import STATUSES
from restapi.openapi import Moment, Number
from restapi.operations import Operations, answer, shape

__all__ = ["get_summary", "list_metrics", "list_top_products"]

API = Operations("analytics")
PRODUCT = {"product_id": "p1", "units": 1204}


@extend_schema_field({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$"})
class MinuteField(Field[str, str, str, str]):
    """UTC."""


StatusCounts = shape(
    "StatusCounts",
    "Orders now in each status.",
    **{status: IntegerField() for status in STATUSES},
)
MinuteCount = shape(
    "MinuteCount", "Orders created in one minute.", minute=MinuteField(), count=IntegerField()
)
ProductUnits = shape(
    "ProductUnits",
    "Units of a product in orders that are not cancelled.",
    product_id=CharField(),
    units=IntegerField(),
)
SalesSummary = shape(
    "SalesSummary",
    "The figures a person asks for first.",
    orders_total=IntegerField(
        help_text="All orders that were ever created, cancelled ones included."
    ),
    revenue_total=Number(help_text="The revenue of orders that are not cancelled."),
    by_status=StatusCounts(),
    orders_per_minute=ListSerializer[object](
        child=MinuteCount(), min_length=60, max_length=60, help_text="The last 60, zeros included."
    ),
    top_products=ListSerializer[object](
        child=ProductUnits(), max_length=10, help_text="The most sold first."
    ),
    as_of=Moment(),
)
SalesMetricRow = shape(
    "SalesMetricRow",
    "One figure.",
    metric_name=ChoiceField(MetricName.choices),
    dimension=CharField(
        help_text="`all`, a status, a day, a minute or a product id, as the metric has it."
    ),
    value=Number(),
    updated_at=Moment(),
)
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

get_summary = API.read(
    "getSalesSummary",
    "The figures a person asks for first",
    answer=answer(SalesSummary, SUMMARY, name="summary"),
)
list_metrics = API.read(
    "listSalesMetrics",
    "Figures by name and dimension",
    parameters=[MetricsQuery],
    answer=answer(
        SalesMetricRow(many=True),
        FIGURE,
        "An array, by name and dimension.",
        name="revenue of a day",
    ),
)
list_top_products = API.read(
    "listTopProducts",
    "The best sellers",
    parameters=[TopProductsQuery],
    answer=answer(
        ProductUnits(many=True), PRODUCT, "An array, the most sold first.", name="best sellers"
    ),
)
