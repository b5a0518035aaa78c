"""The figures: sums of chunks against a plain recount, and how they are kept."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import ClassVar
from uuid import uuid4

import msgspec
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics import services
from analytics.models import SalesAddition, SalesFigure, SalesMetric
from analytics.services import (
    MINUTES_KEPT,
    UncountedEvent,
    add_up,
    fold_additions,
    prune_orders_per_minute,
    record_sales,
    reset_sales,
)
from analytics.tests.lives import Life, histories, recount
from devtools.testing.patience import PATIENCE
from orders.events import OrderEvent, OrderItem
from outbox.envelope import EventEnvelope
from restapi.tests.tables import row_counts

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


class OrderReturned(OrderEvent, frozen=True, kw_only=True, tag="ORDER_RETURNED"):
    """A type that somebody adds to the map, and that nobody has taught the figures."""

    type: ClassVar[str] = "ORDER_RETURNED"


def test_an_event_that_adds_to_no_figure_is_refused() -> None:
    """It would get a receipt, and be lost without a word."""
    [created] = life("CREATED").events()
    fields = {name: getattr(created, name) for name in OrderReturned.__struct_fields__}
    with pytest.raises(UncountedEvent, match="OrderReturned"):
        add_up([created, OrderReturned(**fields)])


GOOD = life("CREATED").events()[0].to_json()
CANCELLED = life("CREATED", "CANCELLED").events()[1].to_json()


@given(histories())
def test_chunks_add_up_to_the_recount(history: tuple[list[Life], list[list[OrderEvent]]]) -> None:
    lives, chunks = history
    total: Counter[tuple[str, str]] = Counter()
    for chunk in chunks:
        for key, value in add_up(chunk).items():
            total[str(key[0]), key[1]] += value  # type: ignore[assignment]
    assert {key: value for key, value in total.items() if value} == recount(lives)


@pytest.mark.django_db
@settings(max_examples=20, deadline=None)
@given(histories())
def test_recorded_chunks_equal_the_recount(
    history: tuple[list[Life], list[list[OrderEvent]]],
) -> None:
    lives, chunks = history
    reset_sales()
    for number, chunk in enumerate(chunks):
        record_sales(envelopes(chunk))
        if number % 3 == 1:
            fold_additions()
    assert {key: value for key, value in figures().items() if value} == recount(lives)


@pytest.mark.django_db
def test_a_created_order_makes_exactly_these_rows() -> None:
    record_sales(envelopes(life("CREATED").events()))
    assert figures() == {
        ("orders_total", "all"): 1,
        ("orders_total", "CREATED"): 1,
        ("orders_per_minute", "2026-03-12T12:00"): 1,
        ("revenue_total", "all"): Decimal("62.6"),
        ("revenue_total", "2026-03-12"): Decimal("62.6"),
        ("top_products", "p1"): 3,
        ("top_products", "p2"): 1,
    }


@pytest.mark.django_db
def test_a_cancellation_is_taken_from_the_day_of_creation() -> None:
    created, paid, cancelled = life("CREATED", "PAID", "CANCELLED").events()
    assert cancelled.timestamp[:10] == "2026-03-14"
    for event in (created, paid, cancelled):
        record_sales(envelopes([event]))
    assert figures() == {
        ("orders_total", "all"): 1,
        ("orders_total", "CREATED"): 0,
        ("orders_total", "PAID"): 0,
        ("orders_total", "CANCELLED"): 1,
        ("orders_per_minute", "2026-03-12T12:00"): 1,
        ("revenue_total", "all"): 0,
        ("revenue_total", "2026-03-12"): 0,
        ("top_products", "p1"): 0,
        ("top_products", "p2"): 0,
    }


@pytest.mark.django_db
def test_a_chunk_is_two_statements_and_one_row() -> None:
    chunk = envelopes([life("CREATED", number=number).events()[0] for number in range(500)])
    with CaptureQueriesContext(connection) as captured:
        record_sales(chunk)
    assert len(captured) == 2  # which ids the outbox holds, and the row
    assert figures()["orders_total", "all"] == 500
    assert len(SalesAddition.objects.get().values) == 7


@pytest.mark.django_db
def test_an_update_tells_when() -> None:
    created, paid = life("CREATED", "PAID").events()
    record_sales(envelopes([created]))
    rows = SalesFigure.objects.filter(metric_name="orders_total")
    before = rows.get(dimension="all").updated_at
    first = rows.get(dimension="CREATED").updated_at
    record_sales(envelopes([paid]))
    for _ in ("before it is folded", "after"):
        assert rows.get(dimension="all").updated_at == before
        assert rows.get(dimension="CREATED").updated_at > first
        fold_additions()


@pytest.mark.django_db
def test_no_events_write_nothing() -> None:
    record_sales(envelopes([]))
    assert not SalesAddition.objects.exists()


@pytest.mark.django_db
@settings(max_examples=20, deadline=None)
@given(histories(), st.data())
def test_figures_do_not_depend_on_how_events_are_cut_into_chunks(
    history: tuple[list[Life], list[list[OrderEvent]]], data: st.DataObject
) -> None:
    """To the row: also which figures there are, those of 0 included."""
    events = [event for chunk in history[1] for event in chunk]
    found = []
    for sizes in ([1] * len(events), [len(events)], data.draw(cuts(len(events)))):
        reset_sales()
        rest = events
        for size in sizes:
            record_sales(envelopes(rest[:size]))
            rest = rest[size:]
            if data.draw(st.booleans()):
                fold_additions()
        assert rest == []
        found.append(figures())
    assert found[0] == found[1] == found[2]


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    """Sizes of chunks that make up so many events."""
    sizes = []
    while length:
        sizes.append(draw(st.integers(1, length)))
        length -= sizes[-1]
    return sizes


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload",
    [
        *("", "{}", "null", "[1]", '{"eventType":"ORDER_MELTED"}', "\udcff", '{"eventType":1}'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":-62.6'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":"NaN"'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":"Infinity"'),
        GOOD.replace('"quantity":2', '"quantity":-2'),
        GOOD.replace('"quantity":2', '"quantity":0'),
        GOOD.replace('"quantity":2', '"quantity":2.5'),
        GOOD.replace('"quantity":2', '"quantity":10001'),
        GOOD.replace('"quantity":2', f'"quantity":1{"0" * 5000}'),
        GOOD.replace('"productId":"p1"', f'"productId":"{"p" * 256}"'),
        GOOD.replace('"productId":"p1"', '"productId":""'),
        GOOD.replace('"productId":"p1"', '"productId":"p\\u00001"'),
        GOOD.replace('"customerId":"c"', f'"customerId":"{"c" * 256}"'),
        GOOD.replace('"customerId":"c"', '"customerId":"\\u0000"'),
        GOOD.replace('"orderId":"1"', f'"orderId":"{"1" * 256}"'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":9999999999999999999999999999'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":100000000000000000.01'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":1e999999999'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":0.005'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":1e-999999'),
        GOOD.replace('"price":42.5', '"price":42.505'),
        GOOD.replace('"price":42.5', '"price":-0.01'),
        GOOD.replace('"price":42.5', '"price":10000000000'),
        GOOD.replace('"price":42.5', '"price":"NaN"'),
        GOOD.replace("2026-03-12T12:00:30.000Z", "12 March"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-13-45T99:99:99.999Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-02-30T12:00:30.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T24:00:00.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:60.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "٢٠٢٦-03-12T12:00:30.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30.000Z\\n"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30.000+12:99"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30Z"),
        CANCELLED.replace('"timestamp":"2026-03-13', '"timestamp":"2026-02-30'),
        CANCELLED.replace('"reason":""', f'"reason":"{"r" * 1001}"'),
        CANCELLED.replace('"previousStatus":"CREATED"', '"previousStatus":"CREATED\\n"'),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30.000+02:00"),
        CANCELLED.replace('"previousStatus":"CREATED"', '"previousStatus":"SHIPPED"'),
        CANCELLED.replace('"previousStatus":"CREATED"', '"previousStatus":"all"'),
    ],
)
def test_an_event_of_another_shape_stores_nothing(payload: str) -> None:
    [good] = envelopes(life("CREATED").events())
    bad = EventEnvelope(
        event_id=uuid4(),
        type="ORDER_CREATED",
        topic="order-events",
        key="1",
        source="/orders",
        time="",
        payload=payload,
    )
    assert payload not in (GOOD, CANCELLED)
    before = row_counts()
    with pytest.raises((msgspec.DecodeError, UnicodeEncodeError)):
        record_sales([good, bad])
    assert row_counts() == before


WIDEST = (
    GOOD.replace('"productId":"p1"', f'"productId":"{"é" * 255}"')
    .replace('"customerId":"c"', f'"customerId":"{"c" * 255}"')
    .replace('"quantity":2', '"quantity":10000')
    .replace('"price":42.5', '"price":9999999999.990')
    .replace('"totalPrice":62.6', '"totalPrice":9999999999990000.00')
    .replace("2026-03-12T12:00:30.000Z", "0001-01-01T00:00:00.000Z")
)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload",
    [
        WIDEST,
        GOOD.replace('"productId":"p1"', '"productId":" \\\\u0000 \\n"'),  # a text, and no NUL
        GOOD.replace('"totalPrice":62.6', '"totalPrice":0'),
        CANCELLED.replace('"reason":""', f'"reason":"{"r" * 1000}"'),
    ],
)
def test_what_our_writers_can_publish_is_taken(payload: str) -> None:
    assert payload not in (GOOD, CANCELLED)
    [good] = envelopes(life("CREATED").events())
    record_sales([msgspec.structs.replace(good, payload=payload)])
    assert fold_additions() == 1
    assert figures()


@pytest.mark.django_db(transaction=True)
def test_chunks_and_folds_that_meet_lose_nothing() -> None:
    products = [OrderItem(product_id=f"p{n}", quantity=1, price=Decimal(1)) for n in range(100)]
    cancelled = life("CREATED", "CANCELLED", items=tuple(products)).events()[1]
    shipped = life("CREATED", "PAID", "SHIPPED").events()[2]
    chunks = [envelopes([cancelled, shipped]), envelopes([shipped, cancelled])]
    start = threading.Barrier(4)
    done: list[int] = []

    def run(events: list[EventEnvelope]) -> None:
        try:
            start.wait(PATIENCE)
            for _ in range(10):
                record_sales(events)
                done.append(len(events))
                fold_additions()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(chunk,)) for chunk in chunks * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sum(done) == 4 * 10 * 2
    assert figures()["orders_total", "SHIPPED"] == figures()["orders_total", "CANCELLED"] == 40
    assert figures()["top_products", "p99"] == -40
    before = figures()
    fold_additions()
    assert not SalesAddition.objects.exists()
    assert figures() == before


@pytest.mark.django_db(transaction=True)
def test_what_commits_behind_a_fold_is_left_to_the_next() -> None:
    chunk = envelopes(life("CREATED").events())
    written, folded = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                record_sales(chunk)
                written.set()
                assert folded.wait(PATIENCE)
        finally:
            connection.close()

    slow = threading.Thread(target=write)
    slow.start()
    assert written.wait(PATIENCE)
    record_sales(chunk)  # with a higher id
    assert fold_additions() == 1
    folded.set()
    slow.join(PATIENCE)
    assert fold_additions() == 1
    assert figures()["orders_total", "all"] == 2


@pytest.mark.django_db
def test_additions_are_folded_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "FOLD_BATCH", 10)
    chunk = envelopes(life("CREATED").events())
    for _ in range(25):
        record_sales(chunk)
    before = figures()
    with CaptureQueriesContext(connection) as captured:
        assert fold_additions() == 25
    assert sum("DELETE" in query["sql"] for query in captured) == 3
    assert not SalesAddition.objects.exists()
    assert figures() == before
    assert SalesMetric.objects.get(metric_name="orders_total", dimension="all").value == 25


@pytest.mark.django_db
def test_minutes_past_the_kept_window_are_forgotten() -> None:
    kept = [NOON, NOON - timedelta(days=6), NOON - MINUTES_KEPT]
    old = [NOON - MINUTES_KEPT - timedelta(minutes=1), NOON - timedelta(days=400)]
    for number, moment in enumerate([*kept, *old]):
        order = Life(number=number, way=("CREATED",), created_at=moment, amount=Decimal(1))
        record_sales(envelopes(order.events()))
    fold_additions()
    before = figures()
    assert prune_orders_per_minute(now=NOON) == 2
    gone = before.keys() - figures().keys()
    assert gone == {("orders_per_minute", f"{moment:%Y-%m-%dT%H:%M}") for moment in old}
    assert prune_orders_per_minute(now=NOON) == 0


@pytest.mark.django_db
def test_minutes_are_forgotten_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "PRUNE_BATCH", 10)
    with connection.cursor() as cursor:  # leaves the plan that may choose anew for each row
        for way in ("hashjoin", "hashagg", "sort", "material"):
            cursor.execute(f"SET LOCAL enable_{way} = off")
    for back in reversed(range(25)):  # the order in which time would write them
        SalesMetric.objects.create(
            metric_name="orders_per_minute",
            dimension=f"{NOON - timedelta(days=8, minutes=back):%Y-%m-%dT%H:%M}",
            value=1,
            updated_at=NOON,
        )
    with CaptureQueriesContext(connection) as captured:
        assert prune_orders_per_minute(now=NOON) == 25
    assert len(captured) == 4  # 10, 10, 5 and none
    assert figures() == {}
