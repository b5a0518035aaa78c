"""Lists: filters, pages and what they cost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import combinations, product
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from orders.models import Order, OrderStatus
from orders.queries import (
    Cursor,
    FirstPage,
    OrderFilter,
    first_pages_of,
    first_pages_statement,
    order_in_words,
    orders_page,
)

NOON = datetime(2026, 3, 11, 12, tzinfo=UTC)


def store(
    number: int, *, at: datetime = NOON, customer: str = "c1", status: str = "CREATED"
) -> UUID:
    order_id = UUID(int=number)
    Order.objects.create(id=order_id, customer_id=customer, total=1, status=status, created_at=at)
    return order_id


def read_all(narrowed: OrderFilter, *, limit: int, between: Any = lambda: None) -> list[UUID]:
    """The ids of every page, in the order they come; `between` runs after each."""
    ids: list[UUID] = []
    page = orders_page(narrowed=narrowed, limit=limit)
    while True:
        ids += [UUID(order.id) for order in page.orders]
        assert len(page.orders) <= limit
        if page.next is None:
            return ids
        between()
        page = orders_page(
            narrowed=narrowed, limit=limit, after=Cursor.from_text(page.next.to_text())
        )


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20, 100])
def test_pages_hold_every_order_once_newest_first(limit: int) -> None:
    # Threes of the same moment: a cursor of times alone would repeat or skip.
    expected = [store(n, at=NOON + timedelta(seconds=n // 3)) for n in range(20)][::-1]
    assert read_all(OrderFilter(), limit=limit) == expected


@pytest.mark.django_db
def test_first_pages_are_read_together_as_each_by_itself() -> None:
    statuses = [None, *OrderStatus.values]
    for n in range(30):
        at = NOON + timedelta(seconds=n // 3)
        store(n, at=at, status=OrderStatus.values[n * n % 3])  # one has none
    asked = [FirstPage(*each) for each in product((1, 2, 5, 20, 29, 30, 100), statuses)]
    for pages in (asked, asked[::-1], asked[:1], asked[1:2], [FirstPage(3)] * 2):
        with connection.cursor() as cursor:
            cursor.execute(*first_pages_statement(pages))
            found = first_pages_of(cursor.fetchall(), pages)
        assert found == [
            orders_page(narrowed=OrderFilter(status=page.status), limit=page.limit)
            for page in pages
        ]


def test_first_pages_are_one_text_whatever_is_asked() -> None:
    """Each text is prepared and kept by its session."""
    asked = ([FirstPage(1)], [FirstPage(2, "PAID")], [FirstPage(1), FirstPage(9, "PAID")])
    assert len({first_pages_statement(pages)[0] for pages in asked}) == 1


@pytest.mark.django_db
def test_writers_between_pages_repeat_and_skip_nothing() -> None:
    there = [store(n, at=NOON + timedelta(seconds=n)) for n in range(12)][::-1]
    fresh = iter(range(100, 200))

    def write() -> None:
        number = next(fresh)
        store(number, at=NOON + timedelta(seconds=number))
        Order.objects.filter(id=there[number % 12]).update(status="PAID")

    assert read_all(OrderFilter(), limit=3, between=write) == there


@pytest.mark.django_db
def test_filters_narrow_alone_and_together() -> None:
    for number, (customer, status, hour) in enumerate(
        (customer, status, hour)
        for customer in ("c1", "c2")
        for status in OrderStatus.values
        for hour in range(3)
    ):
        store(number, customer=customer, status=status, at=NOON + timedelta(hours=hour))

    def found(**narrowed: Any) -> set[tuple[str, str, int]]:
        page = orders_page(narrowed=OrderFilter(**narrowed), limit=100)
        shown = [json.loads(order.words) for order in page.orders]
        return {(o["customerId"], o["status"], int(o["createdAt"][11:13]) - 12) for o in shown}

    assert len(found()) == 24
    assert {customer for customer, _, _ in found(customer_id="c2")} == {"c2"}
    assert {status for _, status, _ in found(status="PAID")} == {"PAID"}
    assert {hour for _, _, hour in found(created_from=NOON + timedelta(hours=1))} == {1, 2}
    assert {hour for _, _, hour in found(created_to=NOON + timedelta(hours=1))} == {0}
    together = {
        "customer_id": "c1",
        "status": "SHIPPED",
        "created_from": NOON,
        "created_to": NOON + timedelta(hours=2),
    }
    assert found(**together) == {("c1", "SHIPPED", 0), ("c1", "SHIPPED", 1)}
    assert found(customer_id="nobody") == set()


@given(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    st.uuids(),
)
def test_a_cursor_survives_its_text(moment: datetime, order_id: UUID) -> None:
    assert Cursor.from_text(Cursor(moment, order_id).to_text()) == Cursor(moment, order_id)


@given(
    st.text()
    | st.binary().map(lambda data: data.decode("latin-1"))
    | st.from_regex("[A-Za-z0-9_=-]{32}")
    | st.from_regex(r"\A[A-Za-z0-9_-]{32}[= ]{1,4}\Z")
)
def test_what_is_no_cursor_is_refused_or_read(text: str) -> None:
    try:
        cursor = Cursor.from_text(text)
    except ValueError:
        return
    assert cursor.to_text() == text


@pytest.fixture
def many_orders(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orders (id, customer_id, total, status, created_at)
            SELECT gen_random_uuid(), 'customer-' || n %% 2000, 1,
                   CASE WHEN n %% 1000 = 0 THEN 'CANCELLED'
                        ELSE (ARRAY['CREATED', 'PAID', 'SHIPPED'])[1 + n %% 3] END,
                   %s::timestamptz + n * interval '1 second'
            FROM generate_series(1, 40000) n
            """,
            [NOON],
        )
        cursor.execute("ANALYZE orders")


FILTERS: dict[str, Any] = {
    "status": "PAID",
    "customer_id": "customer-7",
    "created_from": NOON + timedelta(hours=1),
    "created_to": NOON + timedelta(hours=9),
}
LISTS = [
    dict(chosen)
    for size in range(len(FILTERS) + 1)
    for chosen in combinations(FILTERS.items(), size)
]
BEHIND = [None, Cursor(NOON + timedelta(seconds=8000), UUID(int=7))]


def test_a_list_looks_at_few_rows(many_orders: None) -> None:
    """Of 40,000 orders hardly more than the page and the filter need, whatever is combined."""
    for narrowed, after in product([*LISTS, {"status": "CANCELLED"}], BEHIND):
        [plan] = _plans(narrowed, after)
        scans = [node for node in _nodes(plan) if "Scan" in node["Node Type"]]
        looked_at = [n["Actual Rows"] + n.get("Rows Removed by Filter", 0) for n in scans]
        assert scans, plan
        assert not any(node["Node Type"] == "Seq Scan" for node in scans), plan
        assert sum(looked_at) <= 400, plan


def test_each_filter_has_its_index(many_orders: None) -> None:
    for narrowed, index in (
        ({}, "orders_newest"),
        ({"created_from": FILTERS["created_from"]}, "orders_newest"),
        ({"created_to": FILTERS["created_to"]}, "orders_newest"),
        ({"status": "CANCELLED"}, "orders_of_status"),  # rare: a common one is met on any page
        ({"customer_id": "customer-7"}, "orders_of_customer"),
    ):
        for after in BEHIND:
            [plan] = _plans(narrowed, after)
            used = {node["Index Name"] for node in _nodes(plan) if "Index Name" in node}
            assert used == {index}, plan


def test_first_pages_look_at_few_rows(many_orders: None) -> None:
    """By the plan that the sessions of hot paths keep, which knows no parameter."""
    pages = [FirstPage(20), FirstPage(20, "CANCELLED"), FirstPage(20, "PAID"), FirstPage(5)]
    sql, parameters = first_pages_statement(pages)
    for place in range(1, len(parameters) + 1):
        sql = sql.replace("%s", f"${place}", 1)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE pages AS {sql}")
        values = ", ".join(f"'{value}'" for value in parameters)
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE pages ({values})")
        [(found,)] = cursor.fetchall()
        cursor.execute("DEALLOCATE pages")
    [explained] = json.loads(found) if isinstance(found, str) else found
    scans = [node for node in _nodes(explained["Plan"]) if node.get("Relation Name") == "orders"]
    assert {node.get("Index Name") for node in scans} == {"orders_newest", "orders_of_status"}
    looked_at = [
        node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in scans
    ]
    assert sum(looked_at) <= 21 * 3 + 6, explained


def _plans(narrowed: dict[str, Any], after: Cursor | None) -> list[dict[str, Any]]:
    plans: list[dict[str, Any]] = []
    with connection.execute_wrapper(partial(_explain, plans)):
        orders_page(narrowed=OrderFilter(**narrowed), limit=20, after=after)
    return plans


def _explain(
    plans: list[dict[str, Any]], execute: Any, sql: str, params: Any, many: bool, context: Any
) -> Any:
    with connection.connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
        found = cursor.fetchone()[0]
    plans.append((json.loads(found) if isinstance(found, str) else found)[0]["Plan"])
    return execute(sql, params, many, context)


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


@pytest.mark.django_db
def test_postgresql_puts_an_order_into_the_words_of_the_contract() -> None:
    odd = 'a "quoted" \\ slash/ \n\t\x01\x7f ä 😀 </script>'
    at = datetime(2026, 3, 11, 22, 0, 0, 123_999, tzinfo=UTC)
    order_id, [first, second, third] = (
        store(7, at=at, customer=odd),
        [UUID(int=n) for n in (3, 1, 2)],
    )
    order = Order.objects.get(id=order_id)
    Order.objects.filter(id=order_id).update(total="70.50")
    order.lines.create(product_id=odd, quantity=2, price="10.00")
    order.lines.create(product_id="p", quantity=1, price="0.10")
    order.changes.create(
        from_status=None, to_status="CREATED", actor="a", at=at, event_ids=[first, second]
    )
    order.changes.create(
        from_status="CREATED", to_status="PAID", reason=odd, actor=odd, at=at, event_ids=[third]
    )
    summary = {
        "orderId": str(order_id),
        "customerId": odd,
        "status": "CREATED",
        "totalPrice": Decimal("70.5"),
        "createdAt": "2026-03-11T22:00:00.123Z",
    }
    moment = {"at": "2026-03-11T22:00:00.123Z"}
    words = order_in_words(order_id) or ""
    assert json.loads(words, parse_float=Decimal) == summary | {
        "items": [
            {"productId": odd, "quantity": 2, "price": 10},
            {"productId": "p", "quantity": 1, "price": Decimal("0.1")},
        ],
        "history": [
            {"from": None, "to": "CREATED", "reason": "", "actor": "a"} | moment,
            {"from": "CREATED", "to": "PAID", "reason": odd, "actor": odd} | moment,
        ],
        "eventIds": [str(first), str(second), str(third)],
    }
    [listed] = orders_page(limit=1).orders
    assert json.loads(listed.words, parse_float=Decimal) == summary
    assert words.startswith(listed.words[:-1])
    assert '"totalPrice":70.5,' in words
    assert '"price":10}' in words
