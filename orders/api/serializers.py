"""The bodies of the orders API: the one definition of what is valid."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from orders.models import OrderStatus
from orders.queries import Cursor
from restapi.cursors import CursorField
from restapi.fields import (
    MoneyField,
    QueryInteger,
    QueryMoment,
    QuerySerializer,
    StrictInteger,
    Text,
)

__all__ = [
    "DEFAULT_LIMIT",
    "CancelSerializer",
    "OrderPageSerializer",
    "OrderSerializer",
    "SimpleOrderSerializer",
    "validated_order",
]

SIMPLE_FIELDS = ("user_id", "amount")
ORDER_FIELDS = ("customerId", "items")
DEFAULT_LIMIT = 20  # orders on a page


class SimpleOrderSerializer(serializers.Serializer[object]):
    """{"user_id", "amount"}"""

    user_id = Text(max_length=255)
    amount = MoneyField(max_digits=12, min_value=Decimal("0.01"))


class ItemSerializer(serializers.Serializer[object]):
    """{"productId", "quantity", "price"}"""

    productId = Text(max_length=255)
    quantity = StrictInteger(min_value=1, max_value=10_000)
    price = MoneyField(max_digits=12, min_value=0)


class OrderSerializer(serializers.Serializer[object]):
    """{"customerId", "items": [1 to 100 of them]}"""

    customerId = Text(max_length=255)
    items = serializers.ListSerializer[object](child=ItemSerializer(), min_length=1, max_length=100)


class CancelSerializer(serializers.Serializer[object]):
    """{"reason"?}"""

    reason = Text(max_length=1000, required=False, allow_blank=True, default="")


class OrderPageSerializer(QuerySerializer):
    """Query parameters of a list. Times are RFC 3339, UTC without an offset; a date is its midnight."""

    status = serializers.ChoiceField(OrderStatus.choices, required=False)
    customerId = serializers.CharField(
        source="customer_id", max_length=255, required=False, trim_whitespace=False
    )
    created_from = QueryMoment(required=False, help_text="Included.")
    created_to = QueryMoment(required=False, help_text="Not included.")
    limit = QueryInteger(min_value=1, max_value=100, default=DEFAULT_LIMIT)
    # 24 bytes in base64url; the first eight are a time, here one between 1970 and 8800.
    cursor = CursorField(
        Cursor.from_text,
        wrong="Must be a cursor from a Link header.",
        pattern=r"^A[A-Za-v][A-Za-z0-9_-]{30}$",
        required=False,
        help_text="From the Link header of the page before.",
    )

    def given(self) -> dict[str, str]:
        """Those that the list knows, as they were written: for the way to the next page."""
        return {name: text for name, text in self.initial_data.items() if name in self.fields}


# Made once: a serializer copies all its fields when it is made, and `run_validation` keeps no
# state in it.
_SIMPLE_ORDER = SimpleOrderSerializer()
_ORDER = OrderSerializer()


def validated_order(body: object) -> tuple[bool, dict[str, Any]]:
    """Whether a POST /orders body is the simple one, and what it says. Raises ValidationError."""
    if not isinstance(body, dict):
        raise serializers.ValidationError("The body must be a JSON object.")
    simple = any(name in body for name in SIMPLE_FIELDS)
    order = any(name in body for name in ORDER_FIELDS)
    if simple and order:
        raise serializers.ValidationError(
            "The body mixes the two shapes: send user_id and amount, or customerId and items."
        )
    if not simple and not order:
        raise serializers.ValidationError(
            "The body has neither shape: send user_id and amount, or customerId and items."
        )
    serializer = _SIMPLE_ORDER if simple else _ORDER
    return simple, serializer.run_validation(body)
