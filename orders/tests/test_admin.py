"""The orders' pages in the admin: what they tell, that they change nothing, what they cost."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.test import Client

from orders import admin, services
from orders.models import Order, ProcessedEvent
from orders.services import NewOrder, NewOrderLine
from outbox.models import InboxReceipt, OutboxEvent
from outbox.tests.admin_pages import COUNT, assert_every_page_is_bounded, fill, log_in, visit

pytestmark = pytest.mark.django_db

ORDERS = "/admin/orders/order/"
PROCESSED = "/admin/orders/processedevent/"
AT = datetime(2026, 3, 11, 22, 0, 0, 123_000, tzinfo=UTC)


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def order_id() -> UUID:
    """One order of two lines."""
    lines = (
        NewOrderLine(product_id="<p1>", quantity=2, price=Decimal("1.50")),
        NewOrderLine(product_id="p2", quantity=1, price=Decimal("0.07")),
    )
    [placed] = services.place_orders([NewOrder(customer_id="cust-9", at=AT, lines=lines)])
    return UUID(placed.order_id)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many orders, lines, changes and processed events as a page may touch."""
    fill(
        monkeypatch,
        "orders, order_lines, order_changes, processed_events",
        "INSERT INTO orders (id, customer_id, total, status, created_at)"
        " SELECT md5(i::text)::uuid, 'c' || i, 1, 'CREATED', now() - i * interval '1 second'"
        f" FROM generate_series(1, {COUNT}) i",
        "INSERT INTO order_lines (order_id, product_id, quantity, price)"
        f" SELECT md5(i::text)::uuid, 'p', 1, 1 FROM generate_series(1, {COUNT}) i",
        "INSERT INTO order_changes (order_id, to_status, actor, at, event_ids)"
        " SELECT md5(i::text)::uuid, 'CREATED', 'a', now(), ARRAY[md5('e' || i)::uuid]"
        f" FROM generate_series(1, {COUNT}) i",
        "INSERT INTO processed_events (event_id, user_id, amount)"
        f" SELECT md5('e' || i)::uuid, 'c' || i, 1 FROM generate_series(1, {COUNT}) i",
    )


@pytest.mark.usefixtures("many")
def test_no_page_touches_more_rows_than_it_may(operator: Client) -> None:
    order = Order.objects.get(customer_id="c77")
    processed = ProcessedEvent.objects.get(user_id="c77")
    pages = [
        ORDERS,
        f"{ORDERS}?p=20",
        f"{ORDERS}?o=4",
        f"{ORDERS}?q={order.pk}",
        f"{ORDERS}?q=c77",
        f"{ORDERS}?q={processed.event_id}",
        f"{ORDERS}?q=nonsense",
        f"{ORDERS}{order.pk}/change/",
        PROCESSED,
        f"{PROCESSED}?p=20",
        f"{PROCESSED}?q={processed.event_id}",
        f"{PROCESSED}?q={order.pk}",
        f"{PROCESSED}?q=c77",
        f"{PROCESSED}?q=nonsense",
        f"{PROCESSED}{processed.pk}/change/",
    ]
    assert_every_page_is_bounded(operator, pages)


@pytest.mark.usefixtures("many")
def test_one_order_is_found_by_indexes_alone(operator: Client) -> None:
    order = Order.objects.get(customer_id="c77")
    for page in (f"{ORDERS}?q={order.pk}", f"{ORDERS}{order.pk}/change/"):
        seen = visit(operator, page)
        assert (str(order.pk) in seen.text, 0 < seen.rows <= 2) == (True, True)


@pytest.mark.parametrize("query", ["customer_id=c77", "status__exact=PAID", "total__gt=1"])
def test_columns_without_an_index_cannot_be_asked_for(operator: Client, query: str) -> None:
    assert operator.get(f"{ORDERS}?{query}").status_code == 400


def test_the_list_is_newest_first(operator: Client, order_id: UUID) -> None:
    newer = NewOrder(customer_id="cust-10", at=AT.replace(year=2027), amount=Decimal(1))
    services.place_orders([newer])
    text = visit(operator, ORDERS).text
    assert text.index("cust-10") < text.index("cust-9")
    assert "2026-03-11T22:00:00.123Z" in text


def test_an_order_shows_its_lines_its_history_and_the_way_to_its_events(
    operator: Client, order_id: UUID
) -> None:
    text = visit(operator, f"{ORDERS}{order_id}/change/").text
    event_id = OutboxEvent.objects.get(topic="order-events").event_id
    for part in ("&lt;p1&gt;", "p2", "1.50", "0.07", "3.07", "CREATED", "History", "anonymous"):
        assert part in text
    link = f"/admin/outbox/outboxevent/?q={event_id}"
    assert f'href="{link}"' in text
    assert str(order_id) in visit(operator, link).text


def test_an_order_is_found_by_every_id_that_leads_to_it(operator: Client, order_id: UUID) -> None:
    other = NewOrder(customer_id="cust-10", at=AT, amount=Decimal(1))
    services.place_orders([other])
    event = OutboxEvent.objects.get(topic="order-events", key=str(order_id))
    OutboxEvent.objects.filter(key=str(order_id)).update(correlation_id="corr-7")
    for text in (order_id, f" {str(order_id).upper()} ", "cust-9", event.event_id, "corr-7"):
        seen = visit(operator, f"{ORDERS}?q={text}").text
        assert (str(order_id) in seen, "cust-10" in seen) == (True, False), text


def test_events_are_found_by_order_and_customer(operator: Client, order_id: UUID) -> None:
    services.place_orders([NewOrder(customer_id="cust-10", at=AT, amount=Decimal(1))])
    event_ids = [*OutboxEvent.objects.filter(key=str(order_id)).values_list("event_id", flat=True)]
    assert len(event_ids) == 3
    for page in ("/admin/outbox/outboxevent/", "/admin/outbox/inboxreceipt/"):
        for event_id in OutboxEvent.objects.values_list("event_id", flat=True):
            InboxReceipt.objects.get_or_create(event_id=event_id, handler="h")
        for text in (str(order_id), "cust-9"):
            seen = visit(operator, f"{page}?q={text}").text
            assert all(str(event_id) in seen for event_id in event_ids), (page, text)
            assert "3 results" in seen, (page, text)


def test_of_a_customer_with_many_orders_the_page_says_what_is_left_out(
    operator: Client, order_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "ORDERS_OF_CUSTOMER", 1)
    events = "/admin/outbox/outboxevent/?q=cust-9"
    assert "newest 1 orders" not in visit(operator, events).text
    services.place_orders([NewOrder(customer_id="cust-9", at=AT, amount=Decimal(1))])
    assert "only the events of the newest 1 orders" in visit(operator, events).text


def test_a_processed_event_is_found_by_event_order_and_customer(operator: Client) -> None:
    orders = [NewOrder(customer_id=f"u{i}", at=AT, amount=Decimal(1)) for i in (1, 2)]
    placed, _ = services.place_orders(orders)
    mine = OutboxEvent.objects.get(topic="orders.created", key=placed.order_id).event_id
    for event_id in OutboxEvent.objects.filter(topic="orders.created").values_list(
        "event_id", flat=True
    ):
        ProcessedEvent.objects.create(event_id=event_id, user_id="u", amount=1)
    for text in (mine, placed.order_id, "u1"):
        seen = visit(operator, f"{PROCESSED}?q={text}").text
        assert (str(mine) in seen, "1 result " in seen) == (True, True), text


def test_what_is_no_id_gets_an_answer(operator: Client, order_id: UUID) -> None:
    seen = visit(operator, f"{ORDERS}?q=cust-8")
    assert "Nothing here has the id “cust-8”." in seen.text
    assert str(order_id) not in seen.text
    assert operator.get(f"{ORDERS}nonsense/change/").status_code == 302
    assert operator.get(f"{ORDERS}{uuid4()}/change/").status_code == 302


def test_nothing_can_be_changed(operator: Client, order_id: UUID) -> None:
    assert operator.get(f"{ORDERS}add/").status_code == 403
    assert operator.get(f"{ORDERS}{order_id}/delete/").status_code == 403
    body = {"id": order_id, "customer_id": "thief", "total": 0, "status": "SHIPPED"}
    assert operator.post(f"{ORDERS}{order_id}/change/", body).status_code == 403
    operator.post(ORDERS, {"action": "delete_selected", "_selected_action": str(order_id)})
    order = Order.objects.get()
    assert (order.customer_id, order.status, order.lines.count()) == ("cust-9", "CREATED", 2)
    text = visit(operator, f"{ORDERS}{order_id}/change/").text
    assert 'type="submit" value="Save' not in text
    assert operator.get(f"{PROCESSED}add/").status_code == 403
