"""Writing the figures: a chunk of events becomes one addition per figure it touches.

All additions of a chunk are one new row. To add them to the figures at once would have every chunk
wait for the same few rows (all orders, today's revenue), and while anybody holds a snapshot open
each update would go past every earlier version of them (docs/adr/0006-additions-are-folded.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import connection, transaction

from analytics.models import MetricName, SalesAddition, SalesMetric
from orders.events import (
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderItem,
    OrderShipped,
    PaymentCompleted,
    decode_order_event,
)
from outbox import upkeep
from outbox.envelope import EventEnvelope

__all__ = [
    "ALL",
    "MINUTES_KEPT",
    "Figures",
    "add_up",
    "fold_additions",
    "prune_orders_per_minute",
    "record_sales",
    "reset_sales",
]

ALL = "all"
MINUTES_KEPT = timedelta(days=7)
PRUNE_BATCH = 1000
FOLD_BATCH = 1000  # chunks
_FOLD_LOCK = 0x464F4C44

Figures = Mapping[tuple[str, str], Decimal]
"""(metric_name, dimension) -> what to add."""


def record_sales(envelopes: Sequence[EventEnvelope]) -> None:
    """Add a chunk of order events to the figures, in the open transaction: one statement, one row.

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
    if not figures:
        return
    keys = sorted(figures)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO sales_additions (metric_names, dimensions, "values", written_at)
            VALUES (%s::text[], %s::text[], %s::numeric(30, 2)[], clock_timestamp())
            """,
            (
                [metric for metric, _ in keys],
                [dimension for _, dimension in keys],
                [figures[key] for key in keys],
            ),
        )


def fold_additions() -> int:
    """Move what chunks have added into `sales_metrics`, a batch a transaction; returns how many
    chunks. Nothing if somebody else is at it. No figure changes by it (`SalesFigure`)."""
    total = 0
    while (folded := _fold_batch()) is not None:
        total += folded
        if folded < FOLD_BATCH:
            upkeep.note_done("fold_additions")
            break
    return total


def _fold_batch() -> int | None:
    """None if somebody else folds."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (_FOLD_LOCK,))
        if not cursor.fetchone()[0]:
            return None
        # One that commits late with a lower id is left to the next fold: it is not seen by this one.
        cursor.execute(
            """
            WITH taken AS (
                DELETE FROM sales_additions
                WHERE id <= coalesce(
                    (SELECT id FROM sales_additions ORDER BY id OFFSET %s LIMIT 1), 9223372036854775807)
                RETURNING metric_names, dimensions, "values", written_at
            ), written AS (
                INSERT INTO sales_metrics (metric_name, dimension, value, updated_at)
                SELECT part.metric_name, part.dimension, sum(part.value), max(taken.written_at)
                FROM taken, unnest(metric_names, dimensions, "values")
                                AS part (metric_name, dimension, value)
                GROUP BY 1, 2
                ON CONFLICT (metric_name, dimension) DO UPDATE
                SET value = sales_metrics.value + excluded.value,
                    updated_at = greatest(sales_metrics.updated_at, excluded.updated_at)
            )
            SELECT count(*) FROM taken
            """,
            (FOLD_BATCH - 1,),
        )
        return int(cursor.fetchone()[0])


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
    with connection.cursor() as cursor:  # a fold under way would bring some of them back
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_FOLD_LOCK,))
    SalesAddition.objects.all().delete()
    SalesMetric.objects.all().delete()
