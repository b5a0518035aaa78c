"""What orders do to the stock: one event a line, reserved with the order, released with its end."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from orders.models import OrderChange, OrderStatus
from orders.services import IllegalTransition, place_orders
from orders.tests.samples import (
    LATER,
    TRACE,
    change,
    events_of,
    line,
    order,
    place,
    simple_order,
)
from outbox.envelope import rfc3339
from outbox.models import OutboxEvent
from outbox.topics import lane_of
from restapi.tests.tables import row_counts

FIELDS = {"eventId", "eventType", "orderId", "productId", "quantity", "timestamp"}
CREATED, PAID, SHIPPED, CANCELLED = OrderStatus


def stock_of(order_id: UUID | str) -> list[tuple[str, str, int]]:
    return [
        (event["eventType"], event["productId"], event["quantity"])
        for event in events_of(order_id, topic="stock")
    ]


@pytest.mark.django_db
def test_a_reservation_is_the_contracts() -> None:
    [placed] = place_orders([order(line("p1", 3, "0.10"))])
    [event] = events_of(placed.order_id, topic="stock")
    row = OutboxEvent.objects.get(topic="stock")
    assert event == {
        "eventId": str(row.event_id),
        "eventType": "STOCK_RESERVED",
        "orderId": placed.order_id,
        "productId": "p1",
        "quantity": 3,
        "timestamp": "2026-03-11T22:00:00.123Z",
    }
    assert row.event_id != placed.event_id
    assert (row.type, row.key, row.source) == ("STOCK_RESERVED", placed.order_id, "/orders")
    assert row.lane == lane_of(placed.order_id)
    assert (row.traceparent, row.correlation_id) == (TRACE.traceparent, TRACE.correlation_id)


@pytest.mark.django_db
def test_every_line_is_one_event_also_of_the_same_product() -> None:
    lines = [line("p2", 1), line("p1", 3), line("p2", 4), line("p2", 1)]
    [placed] = place_orders([order(*lines)])
    assert stock_of(placed.order_id) == [
        ("STOCK_RESERVED", each.product_id, each.quantity) for each in lines
    ]
    events = events_of(placed.order_id, topic="stock")
    assert len({event["eventId"] for event in events}) == 4


@pytest.mark.django_db
@pytest.mark.parametrize("status", [CREATED, PAID])
def test_a_cancellation_releases_line_by_line_what_was_reserved(status: OrderStatus) -> None:
    order_id = place(status)
    change(order_id, CANCELLED)
    assert stock_of(order_id) == [
        ("STOCK_RESERVED", "p1", 2),
        ("STOCK_RESERVED", "p2", 1),
        ("STOCK_RELEASED", "p1", 2),
        ("STOCK_RELEASED", "p2", 1),
    ]
    events = events_of(order_id, topic="stock")
    assert all(event.keys() == FIELDS for event in events)
    assert {event["timestamp"] for event in events[:2]} == {"2026-03-11T22:00:00.123Z"}
    assert {event["timestamp"] for event in events[2:]} == {
        rfc3339(LATER.replace(microsecond=123_000))
    }
    assert len({event["eventId"] for event in events}) == 4


@pytest.mark.django_db
def test_paying_and_shipping_release_nothing() -> None:
    order_id = place(SHIPPED)
    assert [kind for kind, _, _ in stock_of(order_id)] == ["STOCK_RESERVED"] * 2


@pytest.mark.django_db
def test_a_simple_order_has_no_stock() -> None:
    [placed] = place_orders([simple_order()])
    change(UUID(placed.order_id), CANCELLED)
    assert not OutboxEvent.objects.filter(topic="stock").exists()


@pytest.mark.django_db
def test_the_history_names_them_behind_the_orders_own() -> None:
    order_id = place(CANCELLED)
    created, cancelled = OrderChange.objects.order_by("id")
    orders = [UUID(event["eventId"]) for event in events_of(order_id)]
    stock = [UUID(event["eventId"]) for event in events_of(order_id, topic="stock")]
    assert created.event_ids == [orders[0], *stock[:2]]
    assert cancelled.event_ids == [orders[1], *stock[2:]]


@pytest.mark.django_db
def test_an_order_of_a_hundred_lines_is_cancelled_with_the_statements_of_one() -> None:
    counts = set()
    for lines in (1, 100):
        [placed] = place_orders([order(*[line(f"p{number}") for number in range(lines)])])
        with CaptureQueriesContext(connection) as captured:
            change(UUID(placed.order_id), CANCELLED)
        counts.add(len(captured))
        assert len(stock_of(placed.order_id)) == 2 * lines
    assert len(counts) == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_or_refused_tells_the_stock_nothing() -> None:
    order_id = place(SHIPPED)
    before = row_counts()
    with pytest.raises(IllegalTransition):
        change(order_id, CANCELLED)
    with pytest.raises(IntegrityError, match="order_lines_quantity_positive"):
        place_orders([order(), order(line(quantity=0))])
    assert row_counts() == before


@pytest.mark.django_db
def test_a_batch_keeps_each_orders_events_together_and_with_its_trace() -> None:
    placed = place_orders([order(line("a"), line("b")), simple_order(), order(line("c"))])
    rows = OutboxEvent.objects.order_by("id").values_list("key", "type", "correlation_id")
    first, second, third = (one.order_id for one in placed)
    assert list(rows) == [
        (first, "ORDER_CREATED", "request-1"),
        (first, "STOCK_RESERVED", "request-1"),
        (first, "STOCK_RESERVED", "request-1"),
        (second, "ORDER_CREATED", "request-1"),
        (second, "SIMPLE_ORDER_CREATED", "request-1"),
        (third, "ORDER_CREATED", "request-1"),
        (third, "STOCK_RESERVED", "request-1"),
    ]
    assert placed[0].created_at == "2026-03-11T22:00:00.123Z"
