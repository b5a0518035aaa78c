"""Placing orders: rows, events and their number."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.events import OrderCreated, decode_order_event, decode_simple_order_created
from orders.models import Order, OrderChange, OrderLine, ProcessedEvent
from orders.services import NewOrder, place_orders, record_processed_events
from orders.tests.samples import NOW, TRACE, events_of, line, order, simple_order
from outbox.database.unit_of_work import unit_of_work
from outbox.envelope import EventEnvelope
from outbox.models import OutboxEvent
from outbox.publish.events import EventTooLarge, NotInTransaction, publish
from outbox.topics import lane_of
from restapi.tests.tables import row_counts

AT = "2026-03-11T22:00:00.123Z"


def added(before: dict[str, int]) -> dict[str, int]:
    """Rows that came since, by table; tables without a change are left out."""
    after = row_counts()
    return {table: after[table] - count for table, count in before.items() if after[table] != count}


def statements_to_place(orders: list[NewOrder]) -> int:
    with CaptureQueriesContext(connection) as captured:
        place_orders(orders)
    return len(captured)


@pytest.mark.django_db
def test_a_batch_leaves_exactly_its_rows() -> None:
    before = row_counts()
    placed = place_orders([order(), simple_order(), order(line("p9")), simple_order("0.01")])
    assert added(before) == {"orders": 4, "order_lines": 3, "order_changes": 4, "event_outbox": 9}
    assert [one.total for one in placed] == [70, Decimal("42.5"), 20, Decimal("0.01")]
    assert len({one.order_id for one in placed} | {one.event_id for one in placed}) == 8


@pytest.mark.django_db
def test_an_empty_batch_leaves_nothing() -> None:
    before = row_counts()
    assert place_orders([]) == []
    assert added(before) == {}


@pytest.mark.django_db
def test_one_order_and_a_hundred_take_the_same_statements() -> None:
    mixed = [order() if number % 2 else simple_order() for number in range(100)]
    batches = ([order()], [simple_order()], mixed, [order()] * 100, [simple_order()] * 100)
    assert {statements_to_place(batch) for batch in batches} == {
        2  # all rows of the orders, all events
    }


@pytest.mark.django_db
def test_what_is_stored_of_an_order() -> None:
    [placed] = place_orders([order(line("p2", 1, "50"), line("p1", 3, "0.10"))])
    stored = Order.objects.get()
    assert (str(stored.id), stored.customer_id, stored.status) == (
        placed.order_id,
        "cust-123",
        "CREATED",
    )
    assert placed.created_at == AT
    assert stored.total == placed.total == Decimal("50.3")
    assert stored.created_at == NOW.replace(microsecond=123_000)
    lines = OrderLine.objects.order_by("id").values_list("product_id", "quantity", "price")
    assert list(lines) == [("p2", 1, Decimal(50)), ("p1", 3, Decimal("0.1"))]
    change = OrderChange.objects.get()
    assert (change.from_status, change.to_status, change.reason) == (None, "CREATED", "")
    assert (change.actor, change.at) == ("tester", stored.created_at)
    published = list(OutboxEvent.objects.order_by("id").values_list("event_id", flat=True))
    assert change.event_ids == published
    assert (str(published[0]), len(published)) == (
        placed.event_id,
        3,
    )  # the order's, then one a line


@pytest.mark.django_db
def test_ids_grow_in_the_order_given() -> None:
    placed = place_orders([order() for _ in range(50)])
    ids = [one.order_id for one in placed]
    assert sorted(ids) == ids
    published = OutboxEvent.objects.filter(topic="order-events").order_by("id")
    assert [row.key for row in published] == ids


@pytest.mark.django_db
def test_order_created_is_the_contracts() -> None:
    [placed] = place_orders([order(line(), line("p2", 1, "42.50"))])
    [event] = events_of(placed.order_id)
    assert event == {
        "eventId": placed.event_id,
        "eventType": "ORDER_CREATED",
        "orderId": placed.order_id,
        "customerId": "cust-123",
        "totalPrice": Decimal("62.5"),
        "timestamp": AT,
        "createdAt": AT,
        "items": [
            {"productId": "p1", "quantity": 2, "price": 10},
            {"productId": "p2", "quantity": 1, "price": Decimal("42.5")},
        ],
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("price", "written"),
    [
        ("70.00", "70"),
        ("42.50", "42.5"),
        ("7E+1", "70"),
        ("0", "0"),
        ("0.05", "0.05"),
        ("9999999999.99", "9999999999.99"),
    ],
)
def test_money_is_a_number_without_trailing_zeros(price: str, written: str) -> None:
    place_orders([order(line(quantity=1, price=price))])
    payload = OutboxEvent.objects.get(topic="order-events").payload
    assert f'"totalPrice":{written},' in payload
    assert f'"price":{written}}}' in payload


@pytest.mark.django_db
def test_a_simple_order_has_two_events() -> None:
    [placed] = place_orders([simple_order("42.50")])
    created, simple = OutboxEvent.objects.order_by("id")
    assert json.loads(created.payload, parse_float=Decimal) == {
        "eventId": str(created.event_id),
        "eventType": "ORDER_CREATED",
        "orderId": placed.order_id,
        "customerId": "u1",
        "totalPrice": Decimal("42.5"),
        "timestamp": AT,
        "createdAt": AT,
        "items": [],
    }
    assert (simple.topic, simple.key) == ("orders.created", placed.order_id)
    assert str(simple.event_id) == placed.event_id != str(created.event_id)
    assert simple.payload == (
        f'{{"event_id":"{placed.event_id}","user_id":"u1","amount":42.5,"created_at":"{AT}"}}'
    )
    assert OrderChange.objects.get().event_ids == [created.event_id, simple.event_id]
    assert OrderLine.objects.count() == 0


@pytest.mark.django_db
def test_events_can_be_read_back() -> None:
    place_orders([simple_order("9999999999.99", customer='ü \\ " \u2028')])
    created, simple = OutboxEvent.objects.order_by("id")
    order_created = decode_order_event(created.payload)
    assert order_created.to_json() == created.payload
    assert order_created.total_price == Decimal("9999999999.99")
    assert decode_simple_order_created(simple.payload).user_id == 'ü \\ " \u2028'


SIMPLE = '{"event_id":"e1","user_id":"u1","amount":42.5,"created_at":"2026-03-11T22:00:00.000Z"}'


def test_the_widest_simple_event_is_read() -> None:
    widest = SIMPLE.replace("42.5", "9999999999.990").replace("u1", "ü" * 255)
    assert decode_simple_order_created(widest).amount == Decimal("9999999999.99")
    assert decode_simple_order_created(SIMPLE.replace("42.5", "0")).amount == 0


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("42.5", "0.005"),
        ("42.5", "-1"),
        ("42.5", "10000000000"),
        ("42.5", '"Infinity"'),
        ("u1", ""),
        ("u1", "u" * 256),
        ("u1", "\\u0000"),
        ("e1", "e" * 256),
        ("2026-03-11T22:00:00.000Z", "2026-13-45T99:99:99.999Z"),
        ("2026-03-11T22:00:00.000Z", "2026-02-30T22:00:00.000Z"),
        ("2026-03-11T22:00:00.000Z", "٢٠٢٦-03-11T22:00:00.000Z"),
        ("2026-03-11T22:00:00.000Z", "2026-03-11T22:00:00.000+12:99"),
    ],
)
def test_a_simple_event_that_exceeds_its_contract_is_not_read(good: str, bad: str) -> None:
    assert good in SIMPLE
    with pytest.raises(msgspec.DecodeError):
        decode_simple_order_created(SIMPLE.replace(good, bad))


@pytest.mark.django_db
def test_the_effect_of_a_simple_order_is_one_row_however_often_it_comes() -> None:
    [placed, _] = place_orders([simple_order("42.50"), simple_order("0.01", customer="u2")])
    begin = timezone.now()
    envelopes = [
        EventEnvelope(
            event_id=row.event_id,
            type=row.type,
            topic=row.topic,
            key=row.key,
            source=row.source,
            time=AT,
            payload=row.payload,
        )
        for row in OutboxEvent.objects.filter(topic="orders.created").order_by("id")
    ]
    record_processed_events(envelopes)
    record_processed_events(envelopes)
    first, second = ProcessedEvent.objects.order_by("id")
    assert (str(first.event_id), first.user_id, first.amount) == (
        placed.event_id,
        "u1",
        Decimal("42.5"),
    )
    assert (second.user_id, second.amount) == ("u2", Decimal("0.01"))
    assert abs(first.processed_at - begin) < timedelta(minutes=1)


@pytest.mark.django_db
def test_the_outbox_row_around_the_event() -> None:
    [placed] = place_orders([order()])
    row = OutboxEvent.objects.get(topic="order-events")
    published = (str(row.event_id), row.topic, row.type)
    assert published == (placed.event_id, "order-events", "ORDER_CREATED")
    assert (row.key, row.lane) == (placed.order_id, lane_of(placed.order_id))
    assert (row.traceparent, row.correlation_id) == (TRACE.traceparent, TRACE.correlation_id)
    assert (row.status, row.published_at, row.partition, row.offset) == (0, None, None, None)


_ID = UUID(int=7)


class _Refused(Exception):
    pass


def _event(customer: str = "c") -> OrderCreated:
    return OrderCreated(
        event_id=str(_ID),
        order_id=str(_ID),
        customer_id=customer,
        total_price=Decimal(1),
        timestamp=AT,
        created_at=AT,
        items=(),
    )


def _store(*events: OrderCreated, then: Exception | None = None) -> None:
    """A row and its events in one unit of work, with an accident before its end."""
    before = row_counts()
    with unit_of_work():
        Order.objects.create(id=_ID, customer_id="c", total=1, status="CREATED", created_at=NOW)
        publish(events)
        assert added(before) == {"orders": 1, "event_outbox": len(events)}
        if then:
            raise then


@pytest.mark.django_db(transaction=True)
def test_rollback_publishes_nothing() -> None:
    before = row_counts()
    with pytest.raises(_Refused):
        _store(_event(), then=_Refused())
    assert added(before) == {}
    _store(_event())
    assert added(before) == {"orders": 1, "event_outbox": 1}


@pytest.mark.django_db(transaction=True)
def test_a_failing_constraint_stores_nothing_of_the_batch() -> None:
    before = row_counts()
    with pytest.raises(IntegrityError, match="order_lines_quantity_positive"):
        place_orders([order(), simple_order(), order(line(quantity=0))])
    assert added(before) == {}


@pytest.mark.django_db(transaction=True)
def test_an_event_published_twice_stores_nothing() -> None:
    before = row_counts()
    with pytest.raises(IntegrityError, match="event_id"):
        _store(_event(), _event())
    assert added(before) == {}


@pytest.mark.django_db(transaction=True)
def test_publish_outside_a_transaction_writes_nothing() -> None:
    before = row_counts()
    with pytest.raises(NotInTransaction):
        publish([_event()])
    with pytest.raises(NotInTransaction):
        publish([])
    assert added(before) == {}


@pytest.mark.django_db(transaction=True)
def test_an_event_too_large_stores_nothing() -> None:
    before = row_counts()
    with pytest.raises(EventTooLarge, match="order-events takes 1000000"):
        _store(_event(customer="c" * 1_000_000))
    with pytest.raises(EventTooLarge):
        place_orders([order(), order(*[line(product="p" * 255)] * 4000)])
    assert added(before) == {}
