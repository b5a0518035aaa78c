"""The sales figures. No I/O."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

__all__ = [
    "ForeignSalesMetric",
    "MetricName",
    "SalesAddition",
    "SalesFigure",
    "SalesMetric",
    "SalesMetricListing",
    "SalesOverview",
    "SetAsideFigure",
]


class MetricName(models.TextChoices):
    """What is counted; the dimension says of what (contract of the analytics API)."""

    ORDERS_TOTAL = "orders_total"
    REVENUE_TOTAL = "revenue_total"
    ORDERS_PER_MINUTE = "orders_per_minute"
    TOP_PRODUCTS = "top_products"


class _Figure(models.Model):
    """What a table or view of figures has, one a row."""

    metric_name = models.TextField(choices=MetricName)
    dimension = models.TextField()
    value = models.DecimalField(max_digits=30, decimal_places=2)
    updated_at = models.DateTimeField()

    class Meta:
        abstract = True


class SalesMetric(_Figure):
    """One figure as of the last fold, a few seconds ago; `SalesFigure` is up to date. Of all events,
    whoever wrote them."""

    pk = models.CompositePrimaryKey("metric_name", "dimension")

    class Meta:
        db_table = "sales_metrics"
        indexes = [
            # The best sellers without a sort of all products.
            models.Index(
                models.F("value").desc(),
                models.F("dimension"),
                name="sales_metrics_top_products",
                condition=models.Q(metric_name="top_products"),
            ),
        ]


class ForeignSalesMetric(_Figure):
    """How much of a figure comes from events that our outbox does not hold: another producer wrote
    them to our topic. Written together with `SalesMetric`, of which it is a part."""

    pk = models.CompositePrimaryKey("metric_name", "dimension")

    class Meta:
        db_table = "sales_metrics_foreign"


class SalesAddition(models.Model):
    """What one chunk of events adds, until it is folded into `SalesMetric`; written once and
    deleted, never updated, so chunks wait for nobody and a held snapshot keeps no versions.

    The arrays are of one length: value n is added to figure (metric name n, dimension n). Additions
    commute, so the order of chunks of different keys is free.
    """

    id = models.BigAutoField(primary_key=True)
    metric_names = ArrayField(models.TextField())
    dimensions = ArrayField(models.TextField())
    values = ArrayField(models.DecimalField(max_digits=30, decimal_places=2))
    written_at = models.DateTimeField()
    is_foreign = models.BooleanField(
        db_default=False, help_text="Of events that our outbox does not hold."
    )

    class Meta:
        db_table = "sales_additions"


class SetAsideFigure(models.Model):
    """What was to be added to one figure and could not be: the fold left it here and added the rest."""

    id = models.BigAutoField(primary_key=True)
    metric_name = models.TextField()
    dimension = models.TextField()
    value = models.DecimalField(max_digits=1000, decimal_places=2)
    is_foreign = models.BooleanField()
    written_at = models.DateTimeField(help_text="When the last event of it was applied.")
    error = models.TextField()
    set_aside_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))

    class Meta:
        db_table = "sales_set_aside"
        verbose_name = "figure set aside"
        verbose_name_plural = "figures set aside"

    def __str__(self) -> str:
        return f"{self.value} of {self.metric_name}[{self.dimension[:80]}]"


class SalesFigure(_Figure):
    """One figure, additions included: a view. Ask for figures by name; for more than a few, what
    queries.py says."""

    pk = models.CompositePrimaryKey("metric_name", "dimension")

    class Meta:
        managed = False
        db_table = "sales_figures"


class SalesMetricListing(_Figure):
    """The rows of `SalesMetric` through a view with one column as key, which the admin asks of a model."""

    id = models.TextField(primary_key=True)
    foreign_value = models.DecimalField(
        "of other producers",
        max_digits=30,
        decimal_places=2,
        help_text="The part of it that comes from events which our outbox does not hold.",
    )

    class Meta:
        managed = False
        db_table = "sales_metrics_listing"
        verbose_name = "sales metric"

    def __str__(self) -> str:
        return self.id


class SalesOverview(SalesMetricListing):
    """The figures as one page of charts; a model only so that the admin lists and guards it."""

    class Meta:
        proxy = True
        verbose_name = verbose_name_plural = "sales at a glance"
