"""Query parameters of the analytics API."""

from __future__ import annotations

from rest_framework import serializers

from analytics.models import MetricName
from restapi.fields import QueryInteger, QuerySerializer

__all__ = ["MetricsQuery", "TopProductsQuery"]


class MetricsQuery(QuerySerializer):
    """?metric_name=&dimension=&limit="""

    metric_name = serializers.ChoiceField(choices=MetricName.choices, required=False)
    # A product id is kept as it is, so it is asked for as it is.
    dimension = serializers.CharField(max_length=255, required=False, trim_whitespace=False)
    limit = QueryInteger(min_value=1, max_value=1000, default=100)


class TopProductsQuery(QuerySerializer):
    """?limit="""

    limit = QueryInteger(min_value=1, max_value=100, default=10)
