"""Writing orders: every change with its history and its events, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import uuid_utils

from orders.events import (
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderItem,
    OrderShipped,
    PaymentCompleted,
    SimpleOrderCreated,
    StockEvent,
    StockReleased,
    StockReserved,
    decode_simple_order_created,
)
from orders.models import (
    ALLOWED_NEXT,
    Order,
    OrderLine,
    OrderStatus,
    ProcessedEvent,
)
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import changed_by
from outbox.database.round_trips import Change, RoundTrip, Statement, send
from outbox.database.unit_of_work import joined_unit_of_work
from outbox.envelope import NO_TRACE, EventEnvelope, TraceContext, json_number, rfc3339
from outbox.publish.events import Event, publishing

__all__ = [
    "IllegalTransition",
    "NewOrder",
    "NewOrderLine",
    "OrderNotFound",
    "PlacedOrder",
    "cancel_order",
    "pay_order",
    "place_orders",
    "placing_orders",
    "record_processed_events",
    "reset_processed_events",
    "ship_order",
]


# Made for each request on the event loop: a Struct costs a fifth of a dataclass.
class NewOrderLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One item of an order to place."""

    product_id: str
    quantity: int
    price: Decimal


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order to place: with lines, or (a simple order) with an amount and none."""

    customer_id: str
    at: datetime
    lines: tuple[NewOrderLine, ...] = ()
    amount: Decimal | None = None
    actor: str = "anonymous"
    trace: TraceContext = NO_TRACE

    @property
    def total(self) -> Decimal:
        if self.amount is not None:
            return self.amount
        return sum((line.quantity * line.price for line in self.lines), Decimal(0))


class PlacedOrder(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a NewOrder; ids and time as texts, as they are answered. `event_id` is the one in
    the answer: that of orders.created for a simple order, else that of ORDER_CREATED."""

    order_id: str
    event_id: str
    total: Decimal
    created_at: str


class OrderNotFound(LookupError):
    """There is no order with this id."""


class IllegalTransition(Exception):
    """The order is in a status from which this change is not allowed."""

    def __init__(self, status: OrderStatus, wanted: OrderStatus) -> None:
        super().__init__(f"An order that is {status} cannot become {wanted}.")
        self.status = status
        self.allowed = ALLOWED_NEXT[status]


def place_orders(orders: Sequence[NewOrder]) -> list[PlacedOrder]:
    """Store a batch of orders with lines, history and events, in the order given: in the open
    transaction, else in one of its own. All or nothing, two statements whatever the size. Raises
    NotStored and OutcomeUnknown where the transaction is its own.
    """
    change = placing_orders(orders)
    with joined_unit_of_work():
        send(change.trip)
    return [*change.results]


def placing_orders(orders: Sequence[NewOrder]) -> Change[PlacedOrder]:
    """The results and statements of `place_orders`, for callers with a transaction of another
    kind."""
    if not orders:
        return Change(())
    drafts = [_draft(order) for order in orders]
    events = publishing(
        [event for draft in drafts for event in draft.events],
        traces=[draft.order.trace for draft in drafts for _ in draft.events],
    )
    return Change(
        [draft.placed for draft in drafts],
        RoundTrip([_insertion(drafts), *events.statements], events.on_commit),
    )


class _Draft(msgspec.Struct, frozen=True):
    order: NewOrder
    placed: PlacedOrder
    events: tuple[Event, ...]


def _draft(order: NewOrder) -> _Draft:
    # Written once each: in a batch, turning ids and times into text is most of the work.
    order_id, event_id = _new_id(), _new_id()
    created_at, total = rfc3339(order.at), order.total
    total_price = json_number(total)
    created = OrderCreated(
        event_id=event_id,
        order_id=order_id,
        customer_id=order.customer_id,
        total_price=total_price,
        timestamp=created_at,
        created_at=created_at,
        items=_items(order.lines),
    )
    if order.amount is None:
        events: tuple[Event, ...] = (created, *_stock(StockReserved, created, order.lines))
    else:
        event_id = _new_id()
        simple = SimpleOrderCreated(
            event_id=event_id,
            order_id=order_id,
            user_id=order.customer_id,
            amount=total_price,
            created_at=created_at,
        )
        events = (created, simple)
    return _Draft(order, PlacedOrder(order_id, event_id, total, created_at), events)


INSERT_ORDERS = """
    WITH fresh AS (
        SELECT * FROM unnest(%s::uuid[], %s::text[], %s::numeric[], %s::timestamptz[],
                             %s::text[], %s::text[])
            AS fresh (id, customer_id, total, created_at, actor, event_ids)
    ), placed AS (
        INSERT INTO orders (id, customer_id, total, status, created_at)
        SELECT id, customer_id, total, 'CREATED', created_at FROM fresh
    ), lined AS (
        INSERT INTO order_lines (order_id, product_id, quantity, price)
        SELECT order_id, product_id, quantity, price
        FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::numeric[]) WITH ORDINALITY
            AS line (order_id, product_id, quantity, price, position)
        ORDER BY position
    )
    INSERT INTO order_changes (order_id, from_status, to_status, actor, at, event_ids)
    SELECT id, NULL, 'CREATED', actor, created_at, string_to_array(event_ids, ' ')::uuid[]
    FROM fresh
"""


def _insertion(drafts: Sequence[_Draft]) -> Statement:
    """Orders, lines and history in one statement: one plan for the batch."""
    placed = [draft.placed for draft in drafts]
    lines = [(draft.placed.order_id, line) for draft in drafts for line in draft.order.lines]
    return INSERT_ORDERS, (
        array_literal([each.order_id for each in placed]),
        text_array_literal([draft.order.customer_id for draft in drafts]),
        array_literal([each.total for each in placed]),
        array_literal([each.created_at for each in placed]),
        text_array_literal([draft.order.actor for draft in drafts]),
        text_array_literal([" ".join(e.event_id for e in draft.events) for draft in drafts]),
        array_literal([order_id for order_id, _ in lines]),
        text_array_literal([line.product_id for _, line in lines]),
        array_literal([line.quantity for _, line in lines]),
        array_literal([line.price for _, line in lines]),
    )


MOVE_ORDER = """
    WITH moved AS (UPDATE orders SET status = %s WHERE id = %s::uuid)
    INSERT INTO order_changes (order_id, from_status, to_status, reason, actor, at, event_ids)
    VALUES (%s::uuid, %s, %s, %s, %s, %s::timestamptz, %s::uuid[])
"""


def _change(
    *,
    order_id: UUID,
    to_status: OrderStatus,
    kind: type[PaymentCompleted | OrderShipped | OrderCancelled],
    actor: str,
    at: datetime,
    trace: TraceContext,
    reason: str = "",
) -> None:
    """Lock the order, check the move, write status, history and events: one winner of any race."""
    with joined_unit_of_work():
        order = Order.objects.select_for_update().filter(id=order_id).first()
        if order is None:
            raise OrderNotFound(f"There is no order {order_id}.")
        status = OrderStatus(order.status)
        if to_status not in ALLOWED_NEXT[status]:
            raise IllegalTransition(status, to_status)
        events = _events_of(order, kind, reason, timestamp=rfc3339(at))
        id_, event_ids = str(order_id), array_literal(event.event_id for event in events)
        # The order's new status and the step in its history, one statement.
        step = (to_status, id_, id_, status, to_status, reason, actor, rfc3339(at), event_ids)
        published = publishing(events, traces=[trace] * len(events))
        send(RoundTrip([(MOVE_ORDER, step), *published.statements], published.on_commit))


# Each in the open transaction, else in one of its own: CREATED -> PAID, PAID -> SHIPPED, and CREATED or
# PAID -> CANCELLED, with a reason. Raise OrderNotFound, IllegalTransition, NotStored, OutcomeUnknown.
pay_order = partial(_change, to_status=OrderStatus.PAID, kind=PaymentCompleted)
ship_order = partial(_change, to_status=OrderStatus.SHIPPED, kind=OrderShipped)
cancel_order = partial(_change, to_status=OrderStatus.CANCELLED, kind=OrderCancelled)


def _events_of(
    order: Order,
    kind: type[PaymentCompleted | OrderShipped | OrderCancelled],
    reason: str,
    *,
    timestamp: str,
) -> Sequence[Event]:
    """The order's event, and what each line of a cancelled one gives back."""
    common: dict[str, Any] = {
        "event_id": _new_id(),
        "order_id": str(order.id),
        "customer_id": order.customer_id,
        "total_price": json_number(order.total),
        "timestamp": timestamp,
        "created_at": rfc3339(order.created_at),
    }
    if kind is not OrderCancelled:
        return [kind(**common)]
    lines = list(order.lines.order_by("id"))
    cancelled = OrderCancelled(
        items=_items(lines), reason=reason, previous_status=order.status, **common
    )
    return [cancelled, *_stock(StockReleased, cancelled, lines)]


def _items(lines: Iterable[NewOrderLine | OrderLine]) -> tuple[OrderItem, ...]:
    return tuple(
        OrderItem(product_id=line.product_id, quantity=line.quantity, price=json_number(line.price))
        for line in lines
    )


def _stock(
    kind: type[StockReserved | StockReleased],
    event: OrderEvent,
    lines: Iterable[NewOrderLine | OrderLine],
) -> Iterator[StockEvent]:
    """What the lines of the order in `event` do to the stock, one event each."""
    for line in lines:
        yield kind(
            event_id=_new_id(),
            order_id=event.order_id,
            product_id=line.product_id,
            quantity=line.quantity,
            timestamp=event.timestamp,
        )


def record_processed_events(envelopes: Sequence[EventEnvelope]) -> None:
    """One row of processed_events for each event of topic orders.created, in the open transaction.

    Raises msgspec.DecodeError for a value that is none.
    """
    events = [decode_simple_order_created(envelope.payload) for envelope in envelopes]
    changed_by(
        """
        INSERT INTO processed_events (event_id, user_id, amount)
        SELECT event_id, user_id, amount
        FROM unnest(%s::uuid[], %s::text[], %s::numeric[]) AS fresh (event_id, user_id, amount)
        ORDER BY event_id
        ON CONFLICT (event_id) DO NOTHING
        """,
        (
            array_literal(envelope.event_id.hex for envelope in envelopes),
            text_array_literal([event.user_id for event in events]),
            array_literal(event.amount for event in events),
        ),
    )


def reset_processed_events() -> None:
    """Forget all rows of processed_events, in the open transaction, before a replay."""
    ProcessedEvent.objects.all().delete()


def _new_id() -> str:
    return str(uuid_utils.uuid7())
