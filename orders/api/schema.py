"""The orders API in the OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_view,
)
from rest_framework import serializers

from orders.api.serializers import (
    ORDER_FIELDS,
    SIMPLE_FIELDS,
    CancelSerializer,
    OrderSerializer,
    PageSerializer,
    SimpleOrderSerializer,
)
from orders.models import OrderStatus
from restapi.openapi import ErrorBody, Moment, Number, errors

__all__ = ["cancel", "order", "orders", "pay", "ship"]

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


# Answers, as orders/api/representations.py makes them


class SimpleOrderPlaced(serializers.Serializer[object]):
    """Answer to the simple body."""

    status = serializers.ChoiceField(["success"])
    event_id = serializers.UUIDField(help_text="Of the event on topic orders.created.")
    order_id = serializers.UUIDField()


class OrderPlaced(serializers.Serializer[object]):
    """Answer to the order body."""

    orderId = serializers.UUIDField()
    status = serializers.ChoiceField(["CREATED"])
    totalPrice = Number(help_text="Computed by the server.")
    createdAt = Moment()


class OrderSummary(serializers.Serializer[object]):
    """One entry of the list."""

    orderId = serializers.UUIDField()
    customerId = serializers.CharField()
    status = serializers.ChoiceField(OrderStatus.choices)
    totalPrice = Number()
    createdAt = Moment()


class OrderItem(serializers.Serializer[object]):
    """One line of an order."""

    productId = serializers.CharField()
    quantity = serializers.IntegerField()
    price = Number()


class OrderStep(serializers.Serializer[object]):
    """One change of status, and who made it."""

    to = serializers.ChoiceField(OrderStatus.choices)
    reason = serializers.CharField(allow_blank=True)
    actor = serializers.CharField()
    at = Moment()

    def get_fields(self) -> dict[str, Any]:
        # "from" is a keyword of Python.
        first = serializers.ChoiceField(OrderStatus.choices, allow_null=True)
        return {"from": first, **super().get_fields()}


class OrderDetail(OrderSummary):
    """One order, whole."""

    items = OrderItem(many=True, help_text="Empty for an order placed by the simple body.")
    history = OrderStep(many=True)
    eventIds = serializers.ListField(child=serializers.UUIDField())


class IllegalMove(ErrorBody):
    """The order is in a status from which this change is not allowed."""

    # Not there in the 409 of an idempotency key whose first request still runs.
    status = serializers.ChoiceField(OrderStatus.choices, required=False)
    allowed = serializers.ListField(
        child=serializers.ChoiceField(OrderStatus.choices), required=False
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


class _Cursor(OpenApiSerializerFieldExtension):
    """24 bytes in base64url; the first eight are a time, here one between 1970 and 8800."""

    target_class = "orders.api.serializers.CursorField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^A[A-Za-v][A-Za-z0-9_-]{30}$"}


# Operations

KEY = OpenApiParameter(
    "Idempotency-Key",
    {
        "type": "string",
        "maxLength": 255,
        "pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
    },
    OpenApiParameter.HEADER,
    description="Printable ASCII, kept for 24 hours. The same key with the same body gives the "
    "first answer again, byte for byte; with another body 422; 409 while the first still runs. "
    "Errors are not kept.",
    examples=[OpenApiExample("key", value="3f1c9a52-checkout-17")],
)
REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    {"type": "string", "enum": ["true"]},
    OpenApiParameter.HEADER,
    description="There if this answer was given before.",
    response=[200, 201],
)
LINK = OpenApiParameter(
    "Link",
    {"type": "string", "pattern": r'^</orders\?.*>; rel="next"$'},
    OpenApiParameter.HEADER,
    description="The next page; not there on the last.",
    response=[200],
)
ORDER_ID = OpenApiParameter(
    "order_id",
    {"type": "string", "format": "uuid"},
    OpenApiParameter.PATH,
    description="An id that is no UUID is a 404 too.",
    examples=[OpenApiExample("order", value=ID)],
)

orders = extend_schema_view(
    get=extend_schema(
        operation_id="listOrders",
        tags=["orders"],
        summary="Orders, newest first",
        description="One page. Pages neither repeat nor skip orders that were there when the "
        "first one was read, and a deep page costs what the first one does.",
        parameters=[PageSerializer, LINK],
        responses={
            200: OpenApiResponse(
                OrderSummary(many=True),
                description="An array.",
                examples=[OpenApiExample("page", value=SUMMARY)],
            ),
            **errors(400),
        },
    ),
    post=extend_schema(
        operation_id="placeOrder",
        tags=["orders"],
        summary="Place an order",
        description="In either body; fields of both are refused, unknown ones ignored.",
        parameters=[KEY, REPLAYED],
        request=PolymorphicProxySerializer(
            component_name="NewOrder",
            serializers=[OrderSerializer, SimpleOrderSerializer],
            resource_type_field_name=None,
        ),
        examples=[
            OpenApiExample(
                "order body",
                value={"customerId": "cust-123", "items": ITEMS},
                request_only=True,
            ),
            OpenApiExample(
                "simple body", value={"user_id": "u1", "amount": 42.5}, request_only=True
            ),
        ],
        responses={
            200: OpenApiResponse(
                SimpleOrderPlaced,
                description="To the simple body.",
                examples=[
                    OpenApiExample(
                        "simple order placed",
                        value={"status": "success", "event_id": EVENT_ID, "order_id": ID},
                    )
                ],
            ),
            201: OpenApiResponse(
                OrderPlaced,
                description="To the order body.",
                examples=[
                    OpenApiExample(
                        "order placed",
                        value={
                            "orderId": ID,
                            "status": "CREATED",
                            "totalPrice": 70,
                            "createdAt": AT,
                        },
                    )
                ],
            ),
            **errors(400, 409, 413, 415, 422),
        },
    ),
)

order = extend_schema_view(
    get=extend_schema(
        operation_id="getOrder",
        tags=["orders"],
        summary="One order",
        description="With items, history and event ids.",
        parameters=[ORDER_ID],
        responses={
            200: OpenApiResponse(OrderDetail, examples=[OpenApiExample("order", value=DETAIL)]),
            **errors(404),
        },
    )
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
        post=extend_schema(
            operation_id=f"{verb}Order",
            tags=["orders"],
            summary=f"{verb.capitalize()} an order",
            description=f"To {to}, with its event in the same transaction."
            + ("" if reason else " Asks for nothing; a body must be a JSON object."),
            parameters=[ORDER_ID, KEY, REPLAYED],
            request=CancelSerializer if reason else {"application/json": {"type": "object"}},
            examples=[OpenApiExample("body", value=body, request_only=True)],
            responses={
                200: OpenApiResponse(OrderDetail, examples=[OpenApiExample("order", value=after)]),
                **errors(400, 404, 413, 415, 422),
                409: OpenApiResponse(
                    IllegalMove,
                    description="Not from the status it is in, or the key's first request still runs.",
                    examples=[OpenApiExample("illegal", value=refused)],
                ),
            },
        )
    )


pay = _transition("pay", OrderStatus.PAID)
ship = _transition("ship", OrderStatus.SHIPPED)
cancel = _transition("cancel", OrderStatus.CANCELLED, reason=True)
