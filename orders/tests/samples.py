"""Orders to place, and what they left behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from orders import services
from orders.models import OrderStatus
from orders.services import NewOrder, NewOrderLine, place_orders
from outbox.envelope import NO_TRACE, TraceContext
from outbox.models import OutboxEvent

__all__ = ["LATER", "NOW", "TRACE", "change", "events_of", "line", "order", "place", "simple_order"]

NOW = datetime(2026, 3, 11, 22, 0, 0, 123_999, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)
TRACE = TraceContext("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "request-1")


def line(product: str = "p1", quantity: int = 2, price: str = "10") -> NewOrderLine:
    return NewOrderLine(product_id=product, quantity=quantity, price=Decimal(price))


def order(*lines: NewOrderLine, customer: str = "cust-123") -> NewOrder:
    chosen = lines or (line(), line("p2", 1, "50"))
    return NewOrder(customer_id=customer, lines=chosen, at=NOW, actor="tester", trace=TRACE)


def simple_order(amount: str = "42.50", customer: str = "u1") -> NewOrder:
    return NewOrder(
        customer_id=customer, amount=Decimal(amount), at=NOW, actor="tester", trace=TRACE
    )


def place(status: OrderStatus = OrderStatus.CREATED) -> UUID:
    """The id of a new order that was brought to `status`."""
    [placed] = place_orders([order()])
    order_id = UUID(placed.order_id)
    way = {
        OrderStatus.CREATED: (),
        OrderStatus.PAID: (OrderStatus.PAID,),
        OrderStatus.SHIPPED: (OrderStatus.PAID, OrderStatus.SHIPPED),
        OrderStatus.CANCELLED: (OrderStatus.CANCELLED,),
    }
    for step in way[status]:
        change(order_id, step)
    return order_id


def change(order_id: UUID, wanted: OrderStatus, *, reason: str = "") -> None:
    """Pay, ship or cancel, five seconds after NOW."""
    match wanted:
        case OrderStatus.PAID:
            services.pay_order(order_id=order_id, actor="clerk", at=LATER, trace=NO_TRACE)
        case OrderStatus.SHIPPED:
            services.ship_order(order_id=order_id, actor="clerk", at=LATER, trace=NO_TRACE)
        case OrderStatus.CANCELLED:
            services.cancel_order(
                order_id=order_id, reason=reason, actor="clerk", at=LATER, trace=NO_TRACE
            )
        case OrderStatus.CREATED:
            raise AssertionError("An order is never made CREATED again.")


def events_of(order_id: UUID | str, topic: str = "order-events") -> list[dict[str, Any]]:
    """What was published about an order, oldest first, numbers exact."""
    rows = OutboxEvent.objects.filter(topic=topic, key=str(order_id)).order_by("id")
    return [json.loads(row.payload, parse_float=Decimal) for row in rows]
