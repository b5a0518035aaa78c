"""What the newer release publishes, and what each release reads."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import msgspec

from orders.events import ORDER_EVENTS_TOPIC, OrderCreated, PaymentCompleted
from outbox.topics import Topic

__all__ = ["NEW", "READ", "OrderDelivered"]

NEW = os.environ.get("COURIER") == "new"
"""Whether this is the newer release."""


class OrderDelivered(msgspec.Struct, frozen=True, kw_only=True):
    """The courier has handed an order over."""

    topic: ClassVar[Topic] = ORDER_EVENTS_TOPIC
    source: ClassVar[str] = "/deliveries"
    type: ClassVar[str] = "ORDER_DELIVERED"

    event_id: str
    order_id: str

    @property
    def key(self) -> str:
        """The order: the same as of all events of this topic."""
        return self.order_id

    def to_json(self) -> str:
        """The message's value."""
        return msgspec.json.encode(self).decode()


READ: tuple[type[Any], ...] = (OrderCreated, PaymentCompleted, *((OrderDelivered,) * NEW))
"""Event classes that the handler of this release subscribes to."""
