"""Writing the figures: a chunk of events becomes one addition per figure it touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import connection

from analytics.models import MetricName, SalesMetric
from orders.events import (
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderItem,
    OrderShipped,
    PaymentCompleted,
    decode_order_event,
)
from outbox.envelope import EventEnvelope

__all__ = [
    "ALL",
    "MINUTES_KEPT",
    "Figures",
    "add_up",
    "prune_orders_per_minute",
    "record_sales",
    "reset_sales",
]

ALL = "all"
MINUTES_KEPT = timedelta(days=7)
PRUNE_BATCH = 1000

Figures = Mapping[tuple[str, str], Decimal]
"""(metric_name, dimension) -> what to add."""


def record_sales(envelopes: Sequence[EventEnvelope]) -> None:
    """Add a chunk of order events to the figures, in the open transaction: one statement.

    Raises msgspec.DecodeError for an event that is not of topic order-events' shape.
    """
    _add(add_up([decode_order_event(envelope.payload) for envelope in envelopes]))


# An enum's members are slow keys: Python computes their hash anew for each use.
_ORDERS_TOTAL = str(MetricName.ORDERS_TOTAL)
_ORDERS_PER_MINUTE = str(MetricName.ORDERS_PER_MINUTE)
_REVENUE_TOTAL = str(MetricName.REVENUE_TOTAL)
_TOP_PRODUCTS = str(MetricName.TOP_PRODUCTS)


def add_up(events: Sequence[OrderEvent]) -> Figures:
    """What these events add to each figure; parts that cancel out are left out."""
    figures: dict[tuple[str, str], Decimal | int] = defaultdict(int)
    for event in events:
        match event:
            case OrderCreated():
                _created(figures, event)
            case PaymentCompleted():
                _moved(figures, "CREATED", "PAID")
            case OrderShipped():
                _moved(figures, "PAID", "SHIPPED")
            case OrderCancelled():
                _moved(figures, event.previous_status, "CANCELLED")
                _sold(figures, event, event.items, sign=-1)
    return {key: Decimal(value) for key, value in figures.items() if value}


def _created(figures: dict[tuple[str, str], Decimal | int], event: OrderCreated) -> None:
    minute = event.created_at[:16]  # YYYY-MM-DDTHH:MM of a time in UTC
    figures[_ORDERS_TOTAL, ALL] += 1
    figures[_ORDERS_TOTAL, "CREATED"] += 1
    figures[_ORDERS_PER_MINUTE, minute] += 1
    _sold(figures, event, event.items, sign=1)


def _moved(figures: dict[tuple[str, str], Decimal | int], from_status: str, to_status: str) -> None:
    figures[_ORDERS_TOTAL, from_status] -= 1
    figures[_ORDERS_TOTAL, to_status] += 1


def _sold(
    figures: dict[tuple[str, str], Decimal | int],
    event: OrderEvent,
    items: Sequence[OrderItem],
    *,
    sign: int,
) -> None:
    day = event.created_at[:10]  # YYYY-MM-DD
    figures[_REVENUE_TOTAL, ALL] += sign * event.total_price
    figures[_REVENUE_TOTAL, day] += sign * event.total_price
    for item in items:
        figures[_TOP_PRODUCTS, item.product_id] += sign * item.quantity


def _add(figures: Figures) -> None:
    """Upsert in sorted order: two chunks that meet wait for each other and never deadlock."""
    if not figures:
        return
    keys = sorted(figures)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO sales_metrics (metric_name, dimension, value, updated_at)
            SELECT metric_name, dimension, value, clock_timestamp()
            FROM unnest(%s::text[], %s::text[], %s::numeric[]) AS part (metric_name, dimension, value)
            ORDER BY metric_name COLLATE "C", dimension COLLATE "C"
            ON CONFLICT (metric_name, dimension) DO UPDATE
            SET value = sales_metrics.value + excluded.value, updated_at = excluded.updated_at
            """,
            (
                [metric for metric, _ in keys],
                [dimension for _, dimension in keys],
                [figures[key] for key in keys],
            ),
        )


def prune_orders_per_minute(*, now: datetime) -> int:
    """Forget minutes that are past the kept window, a batch a statement; returns how many.

    An hour's run forgets sixty; after a long pause of beat it goes on until none is left.
    """
    oldest = (now - MINUTES_KEPT).strftime("%Y-%m-%dT%H:%M")
    total = 0
    while deleted := _prune_batch(oldest):
        total += deleted
    return total


def _prune_batch(oldest: str) -> int:
    # Chosen in a WITH, once: a subquery with a LIMIT may be run anew for each row it is joined to.
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS MATERIALIZED (
                SELECT metric_name, dimension FROM sales_metrics
                WHERE metric_name = %s AND dimension < %s
                ORDER BY dimension LIMIT %s FOR UPDATE SKIP LOCKED)
            DELETE FROM sales_metrics USING due
            WHERE sales_metrics.metric_name = due.metric_name
              AND sales_metrics.dimension = due.dimension
            """,
            (_ORDERS_PER_MINUTE, oldest, PRUNE_BATCH),
        )
        return int(cursor.rowcount)


def reset_sales() -> None:
    """Forget every figure, in the open transaction: a replay counts them again from the log."""
    SalesMetric.objects.all().delete()
