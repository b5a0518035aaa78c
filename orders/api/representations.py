"""Orders as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from orders.models import OrderStatus
from orders.queries import Cursor, ListedOrder
from orders.services import PlacedOrder
from outbox.envelope import json_number

__all__ = ["listed", "next_page", "placed_order", "placed_simple_order"]


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


def listed(orders: Sequence[ListedOrder]) -> list[msgspec.Raw]:
    """A page of the list."""
    return [msgspec.Raw(order.words) for order in orders]


def next_page(path: str, parameters: Mapping[str, str], cursor: Cursor | None) -> str:
    """The Link header of a page that was asked for so; empty on the last one."""
    if cursor is None:
        return ""
    return f'<{path}?{urlencode({**parameters, "cursor": cursor.to_text()})}>; rel="next"'
