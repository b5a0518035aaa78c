"""From a POST /orders body to the command, and from its result to the answer: the one way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orders import services
from orders.api.plain_bodies import plain_order
from orders.api.serializers import validated_order
from orders.models import OrderStatus
from orders.services import NewOrder, NewOrderLine, PlacedOrder
from outbox.envelope import json_number
from restapi.context import caller, trace_context
from restapi.hot_path import HotPath
from restapi.json import parse_json

__all__ = ["PLACE_ORDER", "placed", "read_body", "read_order"]


def read_order(body: object) -> NewOrder:
    """The order that a body of either shape asks for. Raises ValidationError."""
    return _new_order(*validated_order(body))


def read_body(body: bytes) -> NewOrder:
    """The same of a body in JSON. Raises ValidationError and ParseError."""
    return _new_order(*(plain_order(body) or validated_order(parse_json(body))))


def _new_order(simple: bool, fields: dict[str, Any]) -> NewOrder:
    at, actor, trace = datetime.now(UTC), caller(), trace_context()
    if simple:
        return NewOrder(
            customer_id=fields["user_id"], amount=fields["amount"], at=at, actor=actor, trace=trace
        )
    lines = tuple(
        NewOrderLine(product_id=item["productId"], quantity=item["quantity"], price=item["price"])
        for item in fields["items"]
    )
    return NewOrder(customer_id=fields["customerId"], lines=lines, at=at, actor=actor, trace=trace)


def placed(order: NewOrder, result: PlacedOrder) -> tuple[int, dict[str, Any]]:
    """Status and body, in the shape the caller has used."""
    if order.amount is not None:
        return 200, {
            "status": "success",
            "event_id": result.event_id,
            "order_id": result.order_id,
        }
    return 201, {
        "orderId": result.order_id,
        "status": OrderStatus.CREATED.value,
        "totalPrice": json_number(result.total),
        "createdAt": result.created_at,
    }


PLACE_ORDER = HotPath(
    method="POST",
    path="/orders",
    route="orders",
    read=lambda asked: read_body(asked.body),
    write=services.placing_orders,
    answer=placed,
)
