"""The figures: sums of chunks against a plain recount."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import ClassVar

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.models import SalesAddition, SalesFigure
from analytics.services import (
    UncountedEvent,
    add_up,
    fold_additions,
    record_sales,
    reset_sales,
)
from analytics.tests.lives import Life, envelopes, figures, histories, life, recount
from orders.events import OrderEvent


class OrderReturned(OrderEvent, frozen=True, kw_only=True, tag="ORDER_RETURNED"):
    """A type that somebody adds to the map, and that nobody has taught the figures."""

    type: ClassVar[str] = "ORDER_RETURNED"


def test_an_event_that_adds_to_no_figure_is_refused() -> None:
    """It would get a receipt, and be lost without a word."""
    [created] = life("CREATED").events()
    fields = {name: getattr(created, name) for name in OrderReturned.__struct_fields__}
    with pytest.raises(UncountedEvent, match="OrderReturned"):
        add_up([created, OrderReturned(**fields)])


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
