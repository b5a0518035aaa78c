"""Endpoints of the analytics app: parse, one call, answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from analytics import queries
from analytics.api import schema
from analytics.api.serializers import MetricsQuery, TopProductsQuery
from outbox.envelope import json_number, rfc3339

__all__ = ["SalesMetricsView", "SummaryView", "TopProductsView"]


class SummaryView(APIView):
    @schema.get_summary
    def get(self, request: Request) -> Response:
        """The figures a person asks for first."""
        now = timezone.now()
        figures = queries.summary(now=now)
        return Response(
            {
                "orders_total": figures.orders_total,
                "revenue_total": json_number(figures.revenue_total),
                "by_status": figures.by_status,
                "orders_per_minute": [
                    {"minute": minute, "count": count} for minute, count in figures.per_minute
                ],
                "top_products": _products(figures.top_products),
                "as_of": rfc3339(now),
            }
        )


class SalesMetricsView(APIView):
    @schema.list_metrics
    def get(self, request: Request) -> Response:
        """Rows of sales_metrics."""
        query = MetricsQuery.of(request)
        rows = queries.sales_metrics(
            metric_name=query.validated_data.get("metric_name"),
            dimension=query.validated_data.get("dimension"),
            limit=query.validated_data["limit"],
        )
        return Response(
            [
                {
                    "metric_name": row.metric_name,
                    "dimension": row.dimension,
                    "value": json_number(row.value),
                    "updated_at": rfc3339(row.updated_at),
                }
                for row in rows
            ]
        )


class TopProductsView(APIView):
    @schema.list_top_products
    def get(self, request: Request) -> Response:
        """The best sellers, an array."""
        query = TopProductsQuery.of(request)
        return Response(_products(queries.top_products(limit=query.validated_data["limit"])))


def _products(pairs: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"product_id": product, "units": units} for product, units in pairs]
