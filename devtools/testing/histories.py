"""Orders with a history, and handlers that have come only so far with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from analytics import services as analytics
from analytics.models import SalesFigure
from orders import services
from orders.services import NewOrder, NewOrderLine
from outbox.envelope import NO_TRACE, EventEnvelope, rfc3339
from outbox.inbox import receipts
from outbox.models import OutboxEvent

__all__ = ["apply", "cancel", "envelope", "figures", "order_events", "pay", "place", "ship"]


def place(
    *, at: datetime, lines: Sequence[tuple[str, int, str]] = (), amount: str | None = None
) -> UUID:
    """One order: (product, quantity, price) each line, or an amount."""
    order = NewOrder(
        customer_id="c1",
        at=at,
        amount=Decimal(amount) if amount is not None else None,
        lines=tuple(
            NewOrderLine(product_id=product, quantity=quantity, price=Decimal(price))
            for product, quantity, price in lines
        ),
    )
    [placed] = services.place_orders([order])
    return UUID(placed.order_id)


def pay(order_id: UUID) -> None:
    services.pay_order(order_id=order_id, actor="t", at=datetime.now(UTC), trace=NO_TRACE)


def ship(order_id: UUID) -> None:
    services.ship_order(order_id=order_id, actor="t", at=datetime.now(UTC), trace=NO_TRACE)


def cancel(order_id: UUID, *, at: datetime | None = None) -> None:
    services.cancel_order(
        order_id=order_id, reason="", actor="t", at=at or datetime.now(UTC), trace=NO_TRACE
    )


def figures() -> dict[tuple[str, str], Decimal]:
    """All that are not 0, by metric and dimension."""
    rows = SalesFigure.objects.exclude(value=0).values_list("metric_name", "dimension", "value")
    return {(metric, dimension): value for metric, dimension, value in rows}


def order_events(order_id: UUID | str | None = None) -> list[OutboxEvent]:
    """Events of topic order-events in commit order, of one order or of all."""
    events = OutboxEvent.objects.filter(topic="order-events").order_by("id")
    return list(events.filter(key=str(order_id)) if order_id else events)


def apply(events: Iterable[OutboxEvent]) -> None:
    """What the handler's task does with a chunk: receipts and figures in one transaction."""
    envelopes = [envelope(event) for event in events]
    with transaction.atomic():
        new = receipts.insert_receipts("record_sales", [each.event_id for each in envelopes])
        analytics.record_sales([each for each in envelopes if each.event_id in new])


def envelope(event: OutboxEvent) -> EventEnvelope:
    """The event as a handler gets it."""
    return EventEnvelope(
        event_id=event.event_id,
        type=event.type,
        topic=event.topic,
        key=event.key,
        source=event.source,
        time=rfc3339(event.created_at),
        payload=event.payload,
    )
