"""Random but legal lives of orders, and the plain recount that the figures must equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st

from analytics.models import SalesFigure
from orders.events import (
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderItem,
    OrderShipped,
    PaymentCompleted,
)
from outbox.envelope import EventEnvelope, json_number, rfc3339

__all__ = ["ITEMS", "NOON", "Life", "envelopes", "figures", "histories", "life", "recount"]

MIDNIGHT = datetime(2026, 3, 12, tzinfo=UTC)
WAYS = (
    ("CREATED",),
    ("CREATED", "PAID"),
    ("CREATED", "PAID", "SHIPPED"),
    ("CREATED", "CANCELLED"),
    ("CREATED", "PAID", "CANCELLED"),
)


@dataclass(frozen=True)
class Life:
    """One order and how far it came; `items` empty and an `amount`: a simple one."""

    number: int
    way: tuple[str, ...]
    created_at: datetime
    amount: Decimal
    items: tuple[OrderItem, ...] = field(default=())

    @property
    def total(self) -> Decimal:
        if not self.items:
            return self.amount
        return sum((item.quantity * item.price for item in self.items), Decimal(0))

    @property
    def status(self) -> str:
        return self.way[-1]

    def events(self) -> list[OrderEvent]:
        """What was published about it, in order."""
        return [self._event(step) for step in range(len(self.way))]

    def _event(self, step: int) -> OrderEvent:
        common: dict[str, Any] = {
            "event_id": f"{self.number}-{step}",
            "order_id": str(self.number),
            "customer_id": "c",
            "total_price": json_number(self.total),
            "timestamp": rfc3339(self.created_at + timedelta(days=step)),
            "created_at": rfc3339(self.created_at),
        }
        match self.way[step]:
            case "CREATED":
                return OrderCreated(**common, items=self.items)
            case "PAID":
                return PaymentCompleted(**common)
            case "SHIPPED":
                return OrderShipped(**common)
            case _:
                previous = self.way[step - 1]
                return OrderCancelled(
                    **common, items=self.items, reason="", previous_status=previous
                )


def recount(lives: list[Life]) -> dict[tuple[str, str], Decimal]:
    """The contract's table of figures, one order after the other; no figure that is 0."""
    figures: Counter[tuple[str, str]] = Counter()
    for life in lives:
        moment = rfc3339(life.created_at)
        figures["orders_total", "all"] += 1
        figures["orders_total", life.status] += 1
        figures["orders_per_minute", moment[:16]] += 1
        if life.status == "CANCELLED":
            continue
        for dimension in ("all", moment[:10]):
            figures["revenue_total", dimension] += life.total  # type: ignore[assignment]
        for item in life.items:
            figures["top_products", item.product_id] += item.quantity
    return {key: Decimal(value) for key, value in figures.items() if value}


cents = st.integers(0, 999_999_999_999).map(lambda number: Decimal(number).scaleb(-2))
items = st.builds(
    OrderItem,
    product_id=st.sampled_from(["p1", "p2", "p3", "all", "CREATED"]),
    quantity=st.integers(1, 10_000),
    price=cents,
)
moments = st.integers(-180_000, 180_000).map(lambda ms: MIDNIGHT + timedelta(milliseconds=ms))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Life], list[list[OrderEvent]]]:
    """Orders, and all their events, mixed (each order's own in order) and cut into chunks."""
    lives = [
        Life(
            number=number,
            way=draw(st.sampled_from(WAYS)),
            created_at=draw(moments),
            amount=draw(cents),
            items=tuple(draw(st.lists(items, max_size=3))),
        )
        for number in range(draw(st.integers(1, 8)))
    ]
    turns = draw(st.permutations([life.number for life in lives for _ in life.way]))
    waiting = {life.number: life.events() for life in lives}
    events = [waiting[number].pop(0) for number in turns]
    size = draw(st.integers(1, len(events)))
    return lives, [events[start : start + size] for start in range(0, len(events), size)]


NOON = datetime(2026, 3, 12, 12, 0, 30, tzinfo=UTC)
ITEMS = (
    OrderItem(product_id="p1", quantity=2, price=Decimal(10)),
    OrderItem(product_id="p2", quantity=1, price=Decimal("42.5")),
    OrderItem(product_id="p1", quantity=1, price=Decimal("0.1")),
)


def envelopes(events: list[OrderEvent]) -> list[EventEnvelope]:
    return [
        EventEnvelope(
            event_id=uuid4(),
            type=event.type,
            topic="order-events",
            key=event.key,
            source=event.source,
            time="",
            payload=event.to_json(),
        )
        for event in events
    ]


def figures() -> dict[tuple[str, str], Decimal]:
    rows = SalesFigure.objects.values_list("metric_name", "dimension", "value")
    return {(metric, dimension): value for metric, dimension, value in rows}


def life(*way: str, number: int = 1, items: tuple[OrderItem, ...] = ITEMS) -> Life:
    return Life(number=number, way=way, created_at=NOON, amount=Decimal(0), items=items)
