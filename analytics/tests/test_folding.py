"""Events of other producers count apart, and what cannot be folded is set aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.db.models import F
from django.test import Client

from analytics import folding, metrics, queries
from analytics.folding import fold_set_aside
from analytics.models import (
    ForeignSalesMetric,
    SalesAddition,
    SalesFigure,
    SalesMetric,
    SetAsideFigure,
)
from analytics.services import fold_additions, prune_orders_per_minute, record_sales, reset_sales
from analytics.tests import lives
from analytics.tests.lives import Life
from orders.events import OrderEvent, OrderItem
from outbox.envelope import EventEnvelope
from outbox.models import OutboxEvent
from outbox.tests.admin_pages import log_in

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 12, 12, 0, 30, tzinfo=UTC)
LARGEST = Decimal("9999999999999999999999999999.99")  # what numeric(30, 2) can hold
TOO_LONG = "".join(f"{uuid4()}" for _ in range(200))  # PostgreSQL would compress one letter


def events(*way: str, product: str = "p1", number: int = 1) -> list[OrderEvent]:
    item = OrderItem(product_id=product, quantity=2, price=Decimal("10.50"))
    life = Life(number=number, way=way, created_at=NOON, amount=Decimal(0), items=(item,))
    return life.events()


def envelopes(of: Sequence[OrderEvent], *, ours: bool) -> list[EventEnvelope]:
    """As a handler gets them; ours are in the outbox."""
    found = lives.envelopes(list(of))
    if ours:
        for envelope, event in zip(found, of, strict=True):
            _publish(envelope.event_id, event)
    return found


def _publish(event_id: UUID, event: OrderEvent) -> None:
    OutboxEvent.objects.create(
        event_id=event_id,
        lane=1,
        topic="order-events",
        key=event.key,
        type=event.type,
        source=event.source,
        payload=event.to_json(),
        status=OutboxEvent.Status.PUBLISHED,
    )


def values(table: type[SalesMetric | SalesFigure | ForeignSalesMetric]) -> dict[str, Decimal]:
    rows = table.objects.exclude(value=0).values_list("metric_name", "dimension", "value")
    return {f"{metric}:{dimension}": value for metric, dimension, value in rows}


def add(figures: dict[tuple[str, str], Decimal], *, is_foreign: bool = False) -> None:
    """An addition as an older version may have written it, without any bound."""
    SalesAddition.objects.create(
        metric_names=[metric for metric, _ in figures],
        dimensions=[dimension for _, dimension in figures],
        values=list(figures.values()),
        is_foreign=is_foreign,
        written_at=NOON,
    )


THEIRS = {
    "orders_total:all": 1,
    "orders_total:PAID": 1,
    "orders_per_minute:2026-03-12T12:00": 1,
    "revenue_total:all": 21,
    "revenue_total:2026-03-12": 21,
    "top_products:theirs": 2,
}


@pytest.mark.parametrize("mixed", [True, False])
def test_foreign_events_count_in_the_sum_and_are_known_apart(mixed: bool) -> None:
    before = metrics.FOREIGN_EVENTS._value.get()
    theirs = envelopes(events("CREATED", "PAID", product="theirs"), ours=False)
    ours = envelopes(events("CREATED", product="ours"), ours=True)
    for chunk in [[theirs[0], *ours, theirs[1]]] if mixed else [theirs, ours]:
        record_sales(chunk)
    assert metrics.FOREIGN_EVENTS._value.get() == before + 2
    for _ in ("before they are folded", "after"):
        summary = queries.summary(now=NOON)
        assert summary.by_status == {"CREATED": 1, "PAID": 1, "SHIPPED": 0, "CANCELLED": 0}
        assert [summary.orders_total, summary.revenue_total] == [2, 42]
        assert list(summary.top_products) == [("ours", 2), ("theirs", 2)]
        assert summary.per_minute[-1] == ("2026-03-12T12:00", 2)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT metric_name || ':' || dimension, value FROM sales_figures_foreign"
                " WHERE value <> 0"
            )
            assert dict(cursor.fetchall()) == THEIRS
        fold_additions()
    assert values(ForeignSalesMetric) == THEIRS
    assert values(SalesMetric)["orders_total:all"] == 2


def test_a_foreign_figure_is_added_to_and_taken_from_like_any_other() -> None:
    for event in envelopes(events("CREATED", "PAID", "CANCELLED"), ours=False):
        record_sales([event])
        fold_additions()
    assert values(ForeignSalesMetric) == values(SalesMetric)
    assert values(ForeignSalesMetric) == {
        "orders_total:all": 1,
        "orders_total:CANCELLED": 1,
        "orders_per_minute:2026-03-12T12:00": 1,
    }


def test_a_replay_and_the_pruning_of_minutes_forget_theirs_too() -> None:
    record_sales(envelopes(events("CREATED"), ours=False))
    fold_additions()
    assert prune_orders_per_minute(now=NOON + timedelta(days=8)) == 1
    assert not ForeignSalesMetric.objects.filter(metric_name="orders_per_minute").exists()
    assert ForeignSalesMetric.objects.count() == 5
    reset_sales()
    assert not ForeignSalesMetric.objects.exists()


def test_an_event_with_the_id_of_one_of_ours_of_another_topic_is_foreign() -> None:
    """Ids of our stock events stand in Kafka for everybody to read."""
    theirs = envelopes(events("CREATED"), ours=True)
    OutboxEvent.objects.update(topic="stock")
    record_sales(theirs)
    fold_additions()
    assert values(ForeignSalesMetric)["orders_total:all"] == 1


def test_the_admin_shows_sum_and_part() -> None:
    record_sales(envelopes(events("CREATED"), ours=True))
    record_sales(envelopes(events("CREATED"), ours=False))
    fold_additions()
    page = log_in().get("/admin/analytics/salesmetriclisting/?q=all").content.decode()
    assert '<td class="field-value">42.00</td>' in page
    assert '<td class="field-foreign_value">21.00</td>' in page


@pytest.mark.parametrize("is_foreign", [False, True])
def test_a_name_that_no_index_takes_is_set_aside_and_the_rest_is_folded(is_foreign: bool) -> None:
    record_sales(envelopes(events("CREATED"), ours=True))
    add(
        {
            ("orders_total", "all"): Decimal(1),
            ("top_products", TOO_LONG): Decimal(7),
            ("top_products", "zebra"): Decimal(3),
        },
        is_foreign=is_foreign,
    )
    record_sales(envelopes(events("CREATED", number=2), ours=True))
    assert fold_additions() == 3
    assert not SalesAddition.objects.exists()
    figures = values(SalesMetric)
    assert figures["orders_total:all"] == 3
    assert [figures["top_products:p1"], figures["top_products:zebra"]] == [4, 3]
    [left] = SetAsideFigure.objects.all()
    assert [left.metric_name, left.dimension, left.value] == ["top_products", TOO_LONG, 7]
    assert (left.is_foreign, left.written_at) == (is_foreign, NOON)
    assert "index" in left.error
    assert metrics.SET_ASIDE._value.get() == 1
    operator = log_in()
    page = "/admin/analytics/setasidefigure/"
    assert f"{TOO_LONG[:80]}…" in operator.get(page).content.decode()
    assert operator.get(f"{page}{left.id}/change/").status_code == 200


def test_a_sum_of_theirs_that_is_too_large_takes_nothing_of_ours_with_it() -> None:
    record_sales(envelopes(events("CREATED"), ours=True))
    for _ in range(2):
        add({("revenue_total", "all"): LARGEST}, is_foreign=True)
    # Also before a fold has found it, no read fails.
    answer = Client().get("/analytics/summary")
    assert (answer.status_code, answer.json()["orders_total"]) == (200, 1)
    assert Client().get("/analytics/metrics").status_code == 200
    assert Client().get("/analytics/top-products").status_code == 200
    assert SalesFigure.objects.get(metric_name="revenue_total", dimension="all").value > LARGEST
    assert fold_additions() == 3
    assert values(SalesMetric)["revenue_total:all"] == 21
    [left] = SetAsideFigure.objects.all()
    assert (left.value, left.is_foreign) == (Decimal("19999999999999999999999999999.98"), True)


def test_many_that_fail_among_many_that_do_not() -> None:
    bad = {("top_products", f"{number}{TOO_LONG}"): Decimal(number) for number in range(1, 8)}
    good = {("top_products", f"p{number}"): Decimal(number) for number in range(1, 100)}
    add({**bad, **good})
    add(good)
    assert fold_additions() == 2
    assert SetAsideFigure.objects.count() == 7
    assert values(SalesMetric) == {
        f"{name[0]}:{name[1]}": 2 * value for name, value in good.items()
    }


def test_what_was_set_aside_is_tried_again_when_an_operator_says_so() -> None:
    add({("revenue_total", "all"): LARGEST})
    fold_additions()
    for value in (1, 2):
        add({("revenue_total", "all"): Decimal(value), ("top_products", TOO_LONG): Decimal(1)})
        fold_additions()
    assert SetAsideFigure.objects.count() == 4
    assert fold_set_aside() == (0, 2)  # one of each figure
    SalesMetric.objects.update(value=5)
    assert fold_set_aside() == (1, 1)
    assert values(SalesMetric) == {"revenue_total:all": 8}
    [left] = SetAsideFigure.objects.all()
    assert [left.dimension, left.value] == [TOO_LONG, 2]
    SetAsideFigure.objects.all().delete()
    assert fold_set_aside() == (0, 0)


def test_an_error_that_passes_sets_nothing_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    record_sales(envelopes(events("CREATED"), ours=True))
    monkeypatch.setattr(folding, "_TAKEN", "taken AS (SELECT pg_sleep(1) LIMIT %s)")
    monkeypatch.setattr(folding, "_ADDED", "added AS (SELECT)")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '50ms'")
    with pytest.raises(OperationalError) as raised, transaction.atomic():
        fold_additions()
    assert isinstance(raised.value.__cause__, psycopg.errors.QueryCanceled)
    assert SalesAddition.objects.count() == 1
    assert not SetAsideFigure.objects.exists()


def test_that_the_figures_set_aside_would_fail_the_fold() -> None:
    """That the tests above can fail: PostgreSQL takes neither the name nor the sum."""
    with pytest.raises(OperationalError, match="index row"), transaction.atomic():
        SalesMetric.objects.create(
            metric_name="top_products", dimension=TOO_LONG, value=1, updated_at=NOON
        )
    SalesMetric.objects.create(
        metric_name="revenue_total", dimension="all", value=LARGEST, updated_at=NOON
    )
    with pytest.raises(DataError, match="overflow"), transaction.atomic():
        SalesMetric.objects.update(value=F("value") + F("value"))
