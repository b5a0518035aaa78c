"""Reading orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.models import Order, OrderChange, OrderLine

__all__ = ["OrderDetail", "detail_of", "newest_orders", "order_detail"]


@dataclass(frozen=True, slots=True)
class OrderDetail:
    """One order with its lines and history, both in the order they were written."""

    order: Order
    lines: Sequence[OrderLine]
    changes: Sequence[OrderChange]


def newest_orders(*, limit: int) -> Sequence[Order]:
    """The first page, newest first."""
    return list(Order.objects.order_by("-created_at", "-id")[:limit])


def order_detail(order_id: UUID) -> OrderDetail | None:
    """One order, or None."""
    order = Order.objects.filter(id=order_id).first()
    return None if order is None else detail_of(order)


def detail_of(order: Order) -> OrderDetail:
    """An order that was read already, with the rest."""
    return OrderDetail(
        order=order,
        lines=list(order.lines.order_by("id")),
        changes=list(order.changes.order_by("id")),
    )
