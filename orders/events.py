"""What the rest of the world hears about orders: the subscription list of other apps.

Shapes: contract of POST /orders and of the topics order-events, orders.created and stock. Times are
RFC 3339 in UTC with milliseconds; amounts are exact JSON numbers without trailing zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, ClassVar

import msgspec

from outbox.topics import Topic

__all__ = [
    "ORDERS_CREATED_TOPIC",
    "ORDER_EVENTS",
    "ORDER_EVENTS_TOPIC",
    "STOCK_TOPIC",
    "OrderCancelled",
    "OrderCreated",
    "OrderEvent",
    "OrderItem",
    "OrderShipped",
    "PaymentCompleted",
    "SimpleOrderCreated",
    "StockEvent",
    "StockReleased",
    "StockReserved",
    "decode_order_event",
    "decode_simple_order_created",
]

ORDER_EVENTS_TOPIC = Topic("order-events")
ORDERS_CREATED_TOPIC = Topic("orders.created")
STOCK_TOPIC = Topic("stock")

_encoder = msgspec.json.Encoder(decimal_format="number")


# Bounds of the contract. They are asked of what is read, not of what is written: anybody may write
# to our topics. They are as wide as what POST /orders takes (orders/api/serializers.py), and must
# stay as wide as anything that was ever published.
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Reason = Annotated[str, msgspec.Meta(max_length=1000)]
_Quantity = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_Cancellable = Annotated[str, msgspec.Meta(pattern=r"\A(CREATED|PAID)\Z")]
_MOST_ITEMS = 100
_MOST_MONEY = Decimal("9999999999.99")  # a price, or the amount of a simple order
_MOST_TOTAL = Decimal(10) ** 17  # above 100 items of 10,000 times the highest price
_CENT = Decimal("0.01")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
)
_NUL = "\\u0000"  # JSON has no other way to write it


class OrderItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of an order."""

    product_id: _Id
    quantity: _Quantity
    price: Decimal


_Items = Annotated[tuple[OrderItem, ...], msgspec.Meta(max_length=_MOST_ITEMS)]


class _Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="eventType"):
    """What the events of topics order-events and stock have."""

    source: ClassVar[str] = "/orders"
    type: ClassVar[str]

    event_id: _Id
    order_id: _Id

    @property
    def key(self) -> str:
        """The order, whose row is locked: its events keep the order of its changes."""
        return self.order_id

    def to_json(self) -> str:
        """The message's value."""
        return _encoder.encode(self).decode()


class OrderEvent(_Event, frozen=True, kw_only=True):
    """What every event of topic order-events has. `timestamp` is the moment of the change,
    `created_at` that of the order."""

    topic: ClassVar[Topic] = ORDER_EVENTS_TOPIC

    customer_id: _Id
    total_price: Decimal
    timestamp: str
    created_at: str


class OrderCreated(OrderEvent, frozen=True, kw_only=True, tag="ORDER_CREATED"):
    """`items` is empty for a simple order."""

    type: ClassVar[str] = "ORDER_CREATED"

    items: _Items


class PaymentCompleted(OrderEvent, frozen=True, kw_only=True, tag="PAYMENT_COMPLETED"):
    """CREATED became PAID."""

    type: ClassVar[str] = "PAYMENT_COMPLETED"


class OrderShipped(OrderEvent, frozen=True, kw_only=True, tag="ORDER_SHIPPED"):
    """PAID became SHIPPED."""

    type: ClassVar[str] = "ORDER_SHIPPED"


class OrderCancelled(OrderEvent, frozen=True, kw_only=True, tag="ORDER_CANCELLED"):
    """CREATED or PAID became CANCELLED; `items` are those of the order."""

    type: ClassVar[str] = "ORDER_CANCELLED"

    items: _Items
    reason: _Reason
    previous_status: _Cancellable


ORDER_EVENTS = (OrderCreated, PaymentCompleted, OrderShipped, OrderCancelled)

_WITH_ITEMS = (OrderCreated, OrderCancelled)

_order_event_decoder = msgspec.json.Decoder(
    OrderCreated | PaymentCompleted | OrderShipped | OrderCancelled
)


def decode_order_event(payload: str) -> OrderEvent:
    """Read a value of topic order-events. Raises msgspec.DecodeError for anything else, also for
    what exceeds the bounds of the contract: lengths, amounts, a third decimal, a date that no
    calendar has, a cancellation of what cannot be cancelled."""
    event: OrderEvent = _order_event_decoder.decode(payload)
    _check_money("totalPrice", event.total_price, _MOST_TOTAL)
    _check_moment("createdAt", event.created_at)
    if event.timestamp != event.created_at:
        _check_moment("timestamp", event.timestamp)
    if isinstance(event, _WITH_ITEMS):
        for item in event.items:
            _check_money("price", item.price, _MOST_MONEY)
    if _NUL in payload:
        _refuse_nul(event)
    return event


# -- what a decoder asks beside types and lengths; it costs each event a few microseconds


def _check_money(name: str, value: Decimal, most: Decimal) -> None:
    """Two decimals by value, as POST /orders asks: 42.500 is 42.5."""
    try:
        if 0 <= value <= most and value == value.quantize(_CENT):
            return
    except InvalidOperation:  # no number
        pass
    # Not the number itself: it may have any number of digits.
    raise msgspec.ValidationError(
        f"{name} must be a number from 0 to {most} with at most two decimals"
    )


def _check_moment(name: str, text: str) -> None:
    """A date of the calendar, written as we write it: fromisoformat takes more."""
    try:
        if _MOMENT.fullmatch(text) and datetime.fromisoformat(text):
            return
    except ValueError:
        pass
    raise msgspec.ValidationError(f"{name} must be a time like 2026-03-11T22:00:00.000Z")


def _refuse_nul(event: msgspec.Struct) -> None:
    """PostgreSQL has no text with a NUL. Asked only where the payload has its escape, which may also
    be an escaped backslash before those letters."""
    if any("\0" in text for text in _texts_of(msgspec.to_builtins(event))):
        raise msgspec.ValidationError("a text has a NUL in it")


def _texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts_of(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts_of(each)


class SimpleOrderCreated(msgspec.Struct, frozen=True, kw_only=True):
    """Topic orders.created: an order that came in the simple body.

    `order_id` is the message's key and no part of its value: empty when read back from one.
    """

    topic: ClassVar[Topic] = ORDERS_CREATED_TOPIC
    source: ClassVar[str] = "/orders"
    type: ClassVar[str] = "SIMPLE_ORDER_CREATED"

    event_id: _Id
    user_id: _Id
    amount: Decimal
    created_at: str
    order_id: str = ""

    @property
    def key(self) -> str:
        return self.order_id

    def to_json(self) -> str:
        """The message's value."""
        value = {
            "event_id": self.event_id,
            "user_id": self.user_id,
            "amount": self.amount,
            "created_at": self.created_at,
        }
        return _encoder.encode(value).decode()


_simple_order_created_decoder = msgspec.json.Decoder(SimpleOrderCreated)


def decode_simple_order_created(payload: str) -> SimpleOrderCreated:
    """Read a value of topic orders.created. Raises msgspec.DecodeError for anything else, also for
    what exceeds the bounds of the contract."""
    event = _simple_order_created_decoder.decode(payload)
    _check_money("amount", event.amount, _MOST_MONEY)
    _check_moment("created_at", event.created_at)
    if _NUL in payload:
        _refuse_nul(event)
    return event


class StockEvent(_Event, frozen=True, kw_only=True):
    """What one line of an order does to the stock of its product. Two lines with the same product
    are two events, so that what is released adds up to what was reserved line by line."""

    topic: ClassVar[Topic] = STOCK_TOPIC

    product_id: str
    quantity: int
    timestamp: str


class StockReserved(StockEvent, frozen=True, kw_only=True, tag="STOCK_RESERVED"):
    """A line of a new order."""

    type: ClassVar[str] = "STOCK_RESERVED"


class StockReleased(StockEvent, frozen=True, kw_only=True, tag="STOCK_RELEASED"):
    """A line of an order that was cancelled."""

    type: ClassVar[str] = "STOCK_RELEASED"
