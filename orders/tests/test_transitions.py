"""The life of an order: every move, legal and not, and races for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.db import connection

from devtools.testing.patience import PATIENCE
from orders.models import ALLOWED_NEXT, Order, OrderChange, OrderStatus
from orders.queries import event_ids_of, order_in_words
from orders.services import IllegalTransition, OrderNotFound, place_orders
from orders.tests.samples import LATER, change, events_of, place, simple_order
from restapi.tests.tables import row_counts

CREATED, PAID, SHIPPED, CANCELLED = OrderStatus
MOVES = (PAID, SHIPPED, CANCELLED)
LEGAL = {(CREATED, PAID), (CREATED, CANCELLED), (PAID, SHIPPED), (PAID, CANCELLED)}
EVENT_TYPES = {
    PAID: "PAYMENT_COMPLETED",
    SHIPPED: "ORDER_SHIPPED",
    CANCELLED: "ORDER_CANCELLED",
}
COMMON = {"eventId", "eventType", "orderId", "customerId", "totalPrice", "timestamp", "createdAt"}
PAIRS = [(status, wanted) for status in OrderStatus for wanted in MOVES]


def history_of(order_id: UUID) -> list[tuple[str | None, str]]:
    rows = OrderChange.objects.filter(order_id=order_id).order_by("id")
    return list(rows.values_list("from_status", "to_status"))


def test_the_table_of_moves_is_the_contracts() -> None:
    found = {(status, wanted) for status, allowed in ALLOWED_NEXT.items() for wanted in allowed}
    assert found == LEGAL


@pytest.mark.django_db
@pytest.mark.parametrize(("status", "wanted"), [pair for pair in PAIRS if pair in LEGAL])
def test_legal_move(status: OrderStatus, wanted: OrderStatus) -> None:
    order_id = place(status)
    before = row_counts()
    change(order_id, wanted)
    after = row_counts()
    assert {
        table: after[table] - before[table] for table in after if after[table] != before[table]
    } == {
        "order_changes": 1,
        "event_outbox": 3 if wanted == CANCELLED else 1,  # two lines give back what they had
    }
    assert Order.objects.get().status == wanted
    last = OrderChange.objects.order_by("id").last()
    assert last is not None
    assert (last.from_status, last.to_status, last.actor) == (status, wanted, "clerk")
    assert last.at == LATER.replace(microsecond=123_000)
    event = events_of(order_id)[-1]
    assert event["eventType"] == EVENT_TYPES[wanted]
    released = events_of(order_id, topic="stock")[2:]
    assert last.event_ids == [UUID(each["eventId"]) for each in (event, *released)]


@pytest.mark.django_db
@pytest.mark.parametrize(("status", "wanted"), [pair for pair in PAIRS if pair not in LEGAL])
def test_illegal_move_changes_nothing(status: OrderStatus, wanted: OrderStatus) -> None:
    order_id = place(status)
    before = row_counts()
    with pytest.raises(IllegalTransition) as refused:
        change(order_id, wanted)
    assert refused.value.status == status
    assert set(refused.value.allowed) == {to for from_, to in LEGAL if from_ == status}
    assert row_counts() == before
    assert Order.objects.get().status == status


@pytest.mark.django_db
@pytest.mark.parametrize("wanted", MOVES)
def test_unknown_order_changes_nothing(wanted: OrderStatus) -> None:
    place()
    before = row_counts()
    with pytest.raises(OrderNotFound):
        change(uuid4(), wanted)
    assert row_counts() == before


@pytest.mark.django_db
def test_events_of_a_whole_life() -> None:
    order_id = place(SHIPPED)
    created, paid, shipped = events_of(order_id)
    for event in (paid, shipped):
        assert event.keys() == COMMON
        assert (event["orderId"], event["customerId"]) == (str(order_id), "cust-123")
        assert event["totalPrice"] == 70
        assert event["timestamp"] == "2026-03-11T22:00:05.123Z"
        assert event["createdAt"] == created["createdAt"] == "2026-03-11T22:00:00.123Z"
    assert [event["eventType"] for event in (created, paid, shipped)] == [
        "ORDER_CREATED",
        "PAYMENT_COMPLETED",
        "ORDER_SHIPPED",
    ]
    assert history_of(order_id) == [(None, "CREATED"), ("CREATED", "PAID"), ("PAID", "SHIPPED")]


@pytest.mark.django_db
@pytest.mark.parametrize("status", [CREATED, PAID])
def test_cancelled_event(status: OrderStatus) -> None:
    order_id = place(status)
    change(order_id, CANCELLED, reason="changed my mind")
    event = events_of(order_id)[-1]
    assert event.keys() == COMMON | {"items", "reason", "previousStatus"}
    assert (event["previousStatus"], event["reason"]) == (status, "changed my mind")
    assert event["items"] == [
        {"productId": "p1", "quantity": 2, "price": 10},
        {"productId": "p2", "quantity": 1, "price": 50},
    ]
    assert OrderChange.objects.filter(to_status=CANCELLED).get().reason == "changed my mind"


@pytest.mark.django_db
def test_cancelled_simple_order_has_no_items_and_no_second_topic() -> None:
    [placed] = place_orders([simple_order("42.50")])
    change(UUID(placed.order_id), CANCELLED)
    event = events_of(placed.order_id)[-1]
    assert (event["items"], event["reason"], event["totalPrice"]) == ([], "", Decimal("42.5"))
    assert len(events_of(placed.order_id, topic="orders.created")) == 1


@pytest.mark.django_db
def test_detail_tells_the_whole_story() -> None:
    order_id = place(SHIPPED)
    shown = json.loads(order_in_words(order_id) or "")
    assert [item["productId"] for item in shown["items"]] == ["p1", "p2"]
    assert [row["to"] for row in shown["history"]] == ["CREATED", "PAID", "SHIPPED"]
    created, paid, shipped = events_of(order_id)
    reserved = events_of(order_id, topic="stock")
    expected = [each["eventId"] for each in (created, *reserved, paid, shipped)]
    assert shown["eventIds"] == expected == list(map(str, event_ids_of(order_id) or ()))
    assert (order_in_words(uuid4()), event_ids_of(uuid4())) == (None, None)


def race(order_id: UUID, wanted: Sequence[OrderStatus]) -> list[OrderStatus]:
    """One thread for each move, all at once; the moves that were made."""
    start = threading.Barrier(len(wanted))
    made: list[OrderStatus] = []
    refused: list[OrderStatus] = []

    def run(move: OrderStatus) -> None:
        try:
            start.wait(PATIENCE)
            change(order_id, move)
            made.append(move)
        except IllegalTransition:
            refused.append(move)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(move,)) for move in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(made) + len(refused) == len(wanted)
    return made


@pytest.mark.django_db(transaction=True)
def test_twenty_pay_at_once_and_one_wins() -> None:
    order_id = place()
    assert race(order_id, [PAID] * 20) == [PAID]
    assert history_of(order_id) == [(None, "CREATED"), ("CREATED", "PAID")]
    assert [event["eventType"] for event in events_of(order_id)] == [
        "ORDER_CREATED",
        "PAYMENT_COMPLETED",
    ]


@pytest.mark.django_db(transaction=True)
def test_shipping_and_cancelling_at_once_and_one_wins() -> None:
    order_id = place(PAID)
    [winner] = race(order_id, [SHIPPED, CANCELLED] * 10)
    assert Order.objects.get().status == winner
    assert history_of(order_id)[2:] == [("PAID", winner)]
    assert [event["eventType"] for event in events_of(order_id)[2:]] == [EVENT_TYPES[winner]]


@pytest.mark.django_db(transaction=True)
def test_paying_and_cancelling_at_once_leave_a_legal_history() -> None:
    order_id = place()
    made = race(order_id, [PAID, CANCELLED] * 10)
    assert sorted(made) in ([CANCELLED], [CANCELLED, PAID])
    steps = [("CREATED", "CANCELLED")]
    if PAID in made:
        steps = [("CREATED", "PAID"), ("PAID", "CANCELLED")]
    assert history_of(order_id)[1:] == steps
    shown = [event["eventType"] for event in events_of(order_id)[1:]]
    assert shown == [EVENT_TYPES[OrderStatus(to_status)] for _, to_status in steps]
    if PAID in made:
        assert events_of(order_id)[-1]["previousStatus"] == "PAID"
