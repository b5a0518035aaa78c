"""Writing the figures: a chunk of events becomes one new row with an addition per figure it touches
(docs/adr/0006-additions-are-folded.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import compress
from operator import not_

import structlog

from analytics import metrics
from analytics.folding import fold_batch, lock_folds, measure_set_aside
from analytics.models import (
    ForeignSalesMetric,
    MetricName,
    SalesAddition,
    SalesMetric,
    SetAsideFigure,
)
from orders.events import (
    ORDER_EVENTS_TOPIC,
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderItem,
    OrderShipped,
    PaymentCompleted,
    decode_order_event,
)
from outbox.database import jobs
from outbox.database.ask import changed_by
from outbox.envelope import EventEnvelope, correlation_fields
from outbox.publish.known import known_event_ids

__all__ = [
    "ALL",
    "MINUTES_KEPT",
    "Figures",
    "UncountedEvent",
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

log = structlog.get_logger("analytics.services")

Figures = Mapping[tuple[str, str], Decimal]
"""(metric_name, dimension) -> what to add."""


class UncountedEvent(TypeError):
    """The handler subscribes to an event that it does not know how to count."""


def record_sales(envelopes: Sequence[EventEnvelope]) -> None:
    """Add a chunk of order events to the figures, in the open transaction: one row, and another one
    for events that our outbox does not hold. These are of other producers; they count, but apart,
    because a recount of our orders knows nothing of them.

    Raises msgspec.DecodeError for an event that is not of topic order-events' shape.
    """
    events = [decode_order_event(envelope.payload) for envelope in envelopes]
    ids = [envelope.event_id for envelope in envelopes]
    known = known_event_ids(ORDER_EVENTS_TOPIC.name, ids)
    if len(known) == len(envelopes):
        _add(add_up(events))
        return
    is_ours = [id_ in known for id_ in ids]
    foreign = [envelope for envelope in envelopes if envelope.event_id not in known]
    _add(add_up([*compress(events, is_ours)]))
    _add(add_up([*compress(events, map(not_, is_ours))]), is_foreign=True)
    metrics.FOREIGN_EVENTS.inc(len(foreign))
    log.info(
        "foreign_events_counted",
        events=len(foreign),
        **correlation_fields(envelope.trace.correlation_id for envelope in foreign),
    )


# An enum's members are slow keys: Python computes their hash again for each use.
_ORDERS_TOTAL = str(MetricName.ORDERS_TOTAL)
_ORDERS_PER_MINUTE = str(MetricName.ORDERS_PER_MINUTE)
_REVENUE_TOTAL = str(MetricName.REVENUE_TOTAL)
_TOP_PRODUCTS = str(MetricName.TOP_PRODUCTS)


def add_up(events: Sequence[OrderEvent]) -> Figures:
    """What these events add to each figure that they touch; also where that is 0 in the end, so that
    no figure depends on how events were cut into chunks. Raises UncountedEvent."""
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
            case _:
                # With a receipt and without an effect it would be lost silently.
                raise UncountedEvent(
                    f"{type(event).__name__} adds to no sales figure: add a case for it to "
                    "add_up in analytics/services.py"
                )
    return {key: Decimal(value) for key, value in figures.items()}


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


def _add(figures: Figures, *, is_foreign: bool = False) -> None:
    if not figures:
        return
    keys = sorted(figures)
    changed_by(
        """
        INSERT INTO sales_additions (metric_names, dimensions, "values", is_foreign, written_at)
        VALUES (%s::text[], %s::text[], %s::numeric(30, 2)[], %s, clock_timestamp())
        """,
        (
            [metric for metric, _ in keys],
            [dimension for _, dimension in keys],
            [figures[key] for key in keys],
            is_foreign,
        ),
    )


def fold_additions(*, batch: int = FOLD_BATCH) -> int:
    """Move what chunks have added into `sales_metrics`, a batch a transaction; returns how many
    chunks. Does nothing if another process folds. The figures (`SalesFigure`) stay the same,
    except that an addition that does not fit is set aside (analytics/folding.py)."""
    total = 0
    while (folded := fold_batch(batch)) is not None:
        total += folded
        if folded < batch:
            measure_set_aside()
            jobs.note_done("fold_additions")
            break
    return total


def prune_orders_per_minute(*, now: datetime, batch: int = PRUNE_BATCH) -> int:
    """Delete minutes past the kept window, a batch for each statement; returns how many.

    An hour's run forgets sixty; after a long pause of beat it goes on until none is left.
    """
    oldest = (now - MINUTES_KEPT).strftime("%Y-%m-%dT%H:%M")
    total = 0
    while deleted := _prune_batch(oldest, batch):
        total += deleted
    return total


def _prune_batch(oldest: str, size: int) -> int:
    # Chosen in a WITH, once: a subquery with a LIMIT may be run again for each row it is joined to.
    return changed_by(
        """
        WITH due AS MATERIALIZED (
            SELECT metric_name, dimension FROM sales_metrics
            WHERE metric_name = %s AND dimension < %s
            ORDER BY dimension LIMIT %s FOR UPDATE SKIP LOCKED
        ), apart AS (
            DELETE FROM sales_metrics_foreign USING due
            WHERE sales_metrics_foreign.metric_name = due.metric_name
              AND sales_metrics_foreign.dimension = due.dimension)
        DELETE FROM sales_metrics USING due
        WHERE sales_metrics.metric_name = due.metric_name
          AND sales_metrics.dimension = due.dimension
        """,
        (_ORDERS_PER_MINUTE, oldest, size),
    )


def reset_sales() -> None:
    """Delete every figure, in the open transaction: a replay counts them again from the log."""
    lock_folds()  # a fold under way would bring some of them back
    for table in (SalesAddition, SalesMetric, ForeignSalesMetric, SetAsideFigure):
        table.objects.all().delete()
