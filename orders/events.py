"""What the rest of the world hears about orders: the subscription list of other apps.

Shapes: contract of POST /orders and of the topics order-events, orders.created and stock. Times are
RFC 3339 in UTC with milliseconds; amounts are exact JSON numbers without trailing zeros.
"""

from __future__ import annotations

from decimal import Decimal
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


# Asked of what is read, not of what is written: figures are made of these.
_Moment = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
_Quantity = Annotated[int, msgspec.Meta(ge=1)]
_Cancellable = Annotated[str, msgspec.Meta(pattern=r"^(CREATED|PAID)$")]


class OrderItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of an order."""

    product_id: str
    quantity: _Quantity
    price: Decimal


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="eventType"):
    """What every event of topic order-events has. `timestamp` is the moment of the change,
    `created_at` that of the order."""

    topic: ClassVar[Topic] = ORDER_EVENTS_TOPIC
    source: ClassVar[str] = "/orders"
    type: ClassVar[str]

    event_id: str
    order_id: str
    customer_id: str
    total_price: Decimal
    timestamp: _Moment
    created_at: _Moment

    @property
    def key(self) -> str:
        """The order: its events keep the order of its changes."""
        return self.order_id

    def to_json(self) -> str:
        """The message's value."""
        return _encoder.encode(self).decode()


class OrderCreated(OrderEvent, frozen=True, kw_only=True, tag="ORDER_CREATED"):
    """`items` is empty for a simple order."""

    type: ClassVar[str] = "ORDER_CREATED"

    items: tuple[OrderItem, ...]


class PaymentCompleted(OrderEvent, frozen=True, kw_only=True, tag="PAYMENT_COMPLETED"):
    """CREATED became PAID."""

    type: ClassVar[str] = "PAYMENT_COMPLETED"


class OrderShipped(OrderEvent, frozen=True, kw_only=True, tag="ORDER_SHIPPED"):
    """PAID became SHIPPED."""

    type: ClassVar[str] = "ORDER_SHIPPED"


class OrderCancelled(OrderEvent, frozen=True, kw_only=True, tag="ORDER_CANCELLED"):
    """CREATED or PAID became CANCELLED; `items` are those of the order."""

    type: ClassVar[str] = "ORDER_CANCELLED"

    items: tuple[OrderItem, ...]
    reason: str
    previous_status: _Cancellable


ORDER_EVENTS = (OrderCreated, PaymentCompleted, OrderShipped, OrderCancelled)

_order_event_decoder = msgspec.json.Decoder(
    OrderCreated | PaymentCompleted | OrderShipped | OrderCancelled
)


def decode_order_event(payload: str) -> OrderEvent:
    """Read a value of topic order-events. Raises msgspec.DecodeError for anything else, also for
    what would make figures of nonsense: a price that is negative or no number, a time of another
    shape, a cancellation of what cannot be cancelled."""
    event: OrderEvent = _order_event_decoder.decode(payload)
    if not event.total_price.is_finite() or event.total_price < 0:
        raise msgspec.ValidationError(f"totalPrice {event.total_price} is no amount of money")
    return event


class SimpleOrderCreated(msgspec.Struct, frozen=True, kw_only=True):
    """Topic orders.created: an order that came in the simple body.

    `order_id` is the message's key and no part of its value: empty when read back from one.
    """

    topic: ClassVar[Topic] = ORDERS_CREATED_TOPIC
    source: ClassVar[str] = "/orders"
    type: ClassVar[str] = "SIMPLE_ORDER_CREATED"

    event_id: str
    user_id: str
    amount: Decimal
    created_at: str
    order_id: str = ""

    @property
    def key(self) -> str:
        """The order."""
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
    """Read a value of topic orders.created. Raises msgspec.DecodeError for anything else."""
    return _simple_order_created_decoder.decode(payload)


class StockEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="eventType"):
    """What one line of an order does to the stock of its product. Two lines with the same product
    are two events, so that what is released adds up to what was reserved line by line."""

    topic: ClassVar[Topic] = STOCK_TOPIC
    source: ClassVar[str] = "/orders"
    type: ClassVar[str]

    event_id: str
    order_id: str
    product_id: str
    quantity: int
    timestamp: str

    @property
    def key(self) -> str:
        """The order, whose row is locked; a product's is not."""
        return self.order_id

    def to_json(self) -> str:
        """The message's value."""
        return _encoder.encode(self).decode()


class StockReserved(StockEvent, frozen=True, kw_only=True, tag="STOCK_RESERVED"):
    """A line of a new order."""

    type: ClassVar[str] = "STOCK_RESERVED"


class StockReleased(StockEvent, frozen=True, kw_only=True, tag="STOCK_RELEASED"):
    """A line of an order that was cancelled."""

    type: ClassVar[str] = "STOCK_RELEASED"
