"""What the measurements send: order events as the shop writes them, without the shop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import uuid_utils

from orders.events import OrderCreated, OrderItem
from outbox.database.unit_of_work import unit_of_work
from outbox.envelope import TraceContext, rfc3339
from outbox.publish.events import publish

__all__ = ["fill", "order_created", "trace"]

KEYS = 20_000
COMMIT_EVENTS = 1000
_PRODUCTS = [f"product-{number:03}" for number in range(200)]


def order_created(number: int) -> OrderCreated:
    """One event of about 330 bytes of JSON; keys repeat after 20,000."""
    now = rfc3339(datetime.now(UTC))
    return OrderCreated(
        event_id=str(uuid_utils.uuid7()),
        order_id=str(UUID(int=number % KEYS + 1)),
        customer_id=f"customer-{number % 5000}",
        total_price=Decimal("70.5"),
        timestamp=now,
        created_at=now,
        items=(OrderItem(product_id=_PRODUCTS[number % 200], quantity=2, price=Decimal("35.25")),),
    )


def trace(number: int) -> TraceContext:
    """Ids as a request would have them."""
    return TraceContext(f"00-{number:032x}-{number:016x}-01", f"bench-{number}")


def fill(events: int, *, start: int = 0) -> None:
    """Commit a backlog, 1,000 events a transaction."""
    for first in range(start, start + events, COMMIT_EVENTS):
        numbers: Sequence[int] = range(first, min(first + COMMIT_EVENTS, start + events))
        with unit_of_work():
            publish([order_created(n) for n in numbers], traces=[trace(n) for n in numbers])
