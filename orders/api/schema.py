"""The orders API in the OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import (
    OpenApiParameter,
    PolymorphicProxySerializer,
    extend_schema_view,
)
from rest_framework.serializers import CharField, ChoiceField, IntegerField, ListField, UUIDField

from orders.api.serializers import (
    ORDER_FIELDS,
    SIMPLE_FIELDS,
    CancelSerializer,
    OrderPageSerializer,
    OrderSerializer,
    SimpleOrderSerializer,
)
from orders.models import OrderStatus
from restapi.openapi import ErrorBody, Moment, Number
from restapi.operations import ANY_OBJECT, Body, Operations, answer, shape, uuid_in_path

__all__ = ["cancel", "get_order", "list_orders", "pay", "place_order", "ship"]

API = Operations("orders")
ID = "0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f"
EVENT_ID = "0198f7a4-5c1f-7c4d-8e5a-1b2c3d4e5f60"
AT = "2026-03-11T22:00:00.000Z"
SUMMARY = {
    "orderId": ID,
    "customerId": "cust-123",
    "status": "CREATED",
    "totalPrice": 70,
    "createdAt": AT,
}
ITEMS = [
    {"productId": "p1", "quantity": 2, "price": 10},
    {"productId": "p2", "quantity": 1, "price": 50},
]
CREATED = {"from": None, "to": "CREATED", "reason": "", "actor": "anonymous", "at": AT}
DETAIL = {**SUMMARY, "items": ITEMS, "history": [CREATED], "eventIds": [EVENT_ID]}


# Answers, as orders/api/commands.py and orders/queries.py make them


SimpleOrderPlaced = shape(
    "SimpleOrderPlaced",
    "Answer to the simple body.",
    status=ChoiceField(["success"]),
    event_id=UUIDField(help_text="The id of the event on topic orders.created."),
    order_id=UUIDField(),
)
OrderPlaced = shape(
    "OrderPlaced",
    "Answer to the order body.",
    orderId=UUIDField(),
    status=ChoiceField(["CREATED"]),
    totalPrice=Number(help_text="Computed by the server."),
    createdAt=Moment(),
)
OrderSummary = shape(
    "OrderSummary",
    "One entry of the list.",
    orderId=UUIDField(),
    customerId=CharField(),
    status=ChoiceField(OrderStatus.choices),
    totalPrice=Number(),
    createdAt=Moment(),
)
OrderItem = shape(
    "OrderItem",
    "One line of an order.",
    productId=CharField(),
    quantity=IntegerField(),
    price=Number(),
)
OrderStep = shape(
    "OrderStep",
    "One change of status, and who made it.",
    **{"from": ChoiceField(OrderStatus.choices, allow_null=True)},  # a keyword of Python
    to=ChoiceField(OrderStatus.choices),
    reason=CharField(allow_blank=True),
    actor=CharField(),
    at=Moment(),
)
OrderDetail = shape(
    "OrderDetail",
    "One order, whole.",
    OrderSummary,
    items=OrderItem(many=True, help_text="Empty for an order placed by the simple body."),
    history=OrderStep(many=True),
    eventIds=ListField(child=UUIDField()),
)
# The two are not there in the 409 of an idempotency key whose first request still runs.
IllegalMove = shape(
    "IllegalMove",
    "The order is in a status from which this change is not allowed.",
    ErrorBody,
    status=ChoiceField(OrderStatus.choices, required=False),
    allowed=ListField(child=ChoiceField(OrderStatus.choices), required=False),
)


class _OneShape(OpenApiSerializerExtension):
    """A body with fields of the other shape is refused; unknown fields are not."""

    target_class = "orders.api.serializers.SimpleOrderSerializer"
    others = ORDER_FIELDS

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema = super().map_serializer(auto_schema, direction)
        return {**schema, "not": {"anyOf": [{"required": [name]} for name in self.others]}}


class _OtherShape(_OneShape):
    target_class = "orders.api.serializers.OrderSerializer"
    others = SIMPLE_FIELDS


# Operations

LINK = OpenApiParameter(
    "Link",
    {"type": "string", "pattern": r'^</orders\?.*>; rel="next"$'},
    OpenApiParameter.HEADER,
    description="The next page; absent on the last one.",
    response=[200],
)
ORDER_ID = uuid_in_path("order_id", "order", ID)

list_orders = API.read(
    "listOrders",
    "Orders, newest first",
    "Returns one page. Pages neither repeat nor skip an order that existed when the first page was "
    "read, and a deep page costs no more than the first one.",
    parameters=[OrderPageSerializer, LINK],
    answer=answer(OrderSummary(many=True), SUMMARY, "An array.", name="page"),
)
place_order = API.write(
    "placeOrder",
    "Place an order",
    "Accepts either of two bodies. A body with fields of both is refused; unknown fields are ignored.",
    body=Body(
        PolymorphicProxySerializer(
            component_name="NewOrder",
            serializers=[OrderSerializer, SimpleOrderSerializer],
            resource_type_field_name=None,
        ),
        {
            "order body": {"customerId": "cust-123", "items": ITEMS},
            "simple body": {"user_id": "u1", "amount": 42.5},
        },
    ),
    answers={
        200: answer(
            SimpleOrderPlaced,
            {"status": "success", "event_id": EVENT_ID, "order_id": ID},
            "The answer to the simple body.",
            name="simple order placed",
        ),
        201: answer(
            OrderPlaced,
            {"orderId": ID, "status": "CREATED", "totalPrice": 70, "createdAt": AT},
            "The answer to the order body.",
            name="order placed",
        ),
    },
)

get_order = API.read(
    "getOrder",
    "One order",
    "With items, history and event ids.",
    parameters=[ORDER_ID],
    answer=answer(OrderDetail, DETAIL, name="order"),
    refuses=[404],
)


def _transition(verb: str, to: OrderStatus, *, reason: bool = False) -> Any:
    """Documents one of the POSTs that move an order; `reason`: it takes a body."""
    body = {"reason": "changed my mind"} if reason else {}
    step = {
        "from": "CREATED",
        "to": to.value,
        "reason": "",
        **body,
        "actor": "anonymous",
        "at": AT,
    }
    after = {**DETAIL, "status": to.value, "history": [CREATED, step]}
    refused = {
        "error": f"An order that is CANCELLED cannot become {to}.",
        "details": [],
        "status": "CANCELLED",
        "allowed": [],
    }
    return extend_schema_view(
        post=API.write(
            f"{verb}Order",
            f"{verb.capitalize()} an order",
            f"Changes the status to {to} and stores the event in the same transaction."
            + ("" if reason else " Needs no body; if there is one, it must be a JSON object."),
            parameters=[ORDER_ID],
            body=Body(CancelSerializer, {"body": body}) if reason else ANY_OBJECT,
            answers={200: answer(OrderDetail, after, name="order")},
            refuses=[404],
            conflict=answer(
                IllegalMove,
                refused,
                "The order's status does not allow this change, or the first request with this key still runs.",
                name="illegal",
            ),
        )
    )


pay = _transition("pay", OrderStatus.PAID)
ship = _transition("ship", OrderStatus.SHIPPED)
cancel = _transition("cancel", OrderStatus.CANCELLED, reason=True)
