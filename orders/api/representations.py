"""Orders as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from orders.models import Order, OrderStatus
from orders.queries import Cursor, OrderDetail, StoredOrder
from orders.services import PlacedOrder
from outbox.envelope import json_number, rfc3339

__all__ = ["detail", "next_page", "placed_order", "placed_simple_order", "summary"]


def placed_simple_order(placed: PlacedOrder) -> dict[str, Any]:
    """Answer to the simple body."""
    return {
        "status": "success",
        "event_id": placed.event_id,
        "order_id": placed.order_id,
    }


def placed_order(placed: PlacedOrder) -> dict[str, Any]:
    """Answer to the order body."""
    return {
        "orderId": placed.order_id,
        "status": OrderStatus.CREATED.value,
        "totalPrice": json_number(placed.total),
        "createdAt": placed.created_at,
    }


def summary(order: Order | StoredOrder) -> dict[str, Any]:
    """One entry of the list."""
    return {
        "orderId": str(order.id),
        "customerId": order.customer_id,
        "status": order.status,
        "totalPrice": json_number(order.total),
        "createdAt": rfc3339(order.created_at),
    }


def next_page(path: str, parameters: Mapping[str, str], cursor: Cursor | None) -> str:
    """The Link header of a page that was asked for so; empty on the last one."""
    if cursor is None:
        return ""
    return f'<{path}?{urlencode({**parameters, "cursor": cursor.to_text()})}>; rel="next"'


def detail(found: OrderDetail) -> dict[str, Any]:
    """One order, whole."""
    return summary(found.order) | {
        "items": [
            {
                "productId": line.product_id,
                "quantity": line.quantity,
                "price": json_number(line.price),
            }
            for line in found.lines
        ],
        "history": [
            {
                "from": change.from_status,
                "to": change.to_status,
                "reason": change.reason,
                "actor": change.actor,
                "at": rfc3339(change.at),
            }
            for change in found.changes
        ],
        "eventIds": [str(event_id) for change in found.changes for event_id in change.event_ids],
    }
