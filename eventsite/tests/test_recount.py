"""The recount agrees with the figures at every moment, and with nothing else."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from analytics.models import SalesFigure, SalesMetric, SetAsideFigure
from analytics.services import fold_additions, record_sales
from devtools.testing.histories import (
    apply,
    cancel,
    envelope,
    figures,
    order_events,
    pay,
    place,
    ship,
)
from eventsite.reports.recount import DIFFERENCES_SHOWN, FigureDifference, compare
from orders.events import OrderCreated, OrderItem
from outbox.envelope import EventEnvelope, rfc3339
from outbox.models import InboxReceipt, OutboxEvent

pytestmark = pytest.mark.django_db

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=30, microsecond=0) - timedelta(days=2)
DAY = f"{NOON:%Y-%m-%d}"
MINUTE = f"{NOON:%Y-%m-%dT%H:%M}"


def _damage(metric_name: str, dimension: str, by: str) -> None:
    fold_additions()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE sales_metrics SET value = value + %s WHERE metric_name = %s AND dimension = %s",
            (Decimal(by), metric_name, dimension),
        )
        assert cursor.rowcount == 1


def _check() -> str:
    out = StringIO()
    call_command("check_sales_metrics", stdout=out)
    return out.getvalue()


def test_nothing_at_all_is_equal() -> None:
    found = compare()
    assert (found.differences, found.different, found.figures, found.under_way) == ([], 0, 0, 0)


def test_orders_of_both_kinds_equal_their_figures_to_the_cent() -> None:
    place(at=NOON, lines=[("p1", 3, "0.1"), ("p2", 1, "19.99"), ("p1", 1, "0")])
    place(at=NOON, amount="9999999999.99")
    apply(order_events())
    assert figures() == {
        ("orders_total", "all"): 2,
        ("orders_total", "CREATED"): 2,
        ("orders_per_minute", MINUTE): 2,
        ("revenue_total", "all"): Decimal("10000000020.28"),
        ("revenue_total", DAY): Decimal("10000000020.28"),
        ("top_products", "p1"): 4,
        ("top_products", "p2"): 1,
    }
    found = compare()
    assert (found.different, found.figures, found.under_way) == (0, 7, 0)
    assert _check() == "All 7 figures equal the recount; 0 events are under way.\n"


def test_a_damaged_cent_is_found_and_named() -> None:
    place(at=NOON, lines=[("p1", 1, "10.01")])
    apply(order_events())
    _damage("revenue_total", DAY, "0.01")
    expected = FigureDifference("revenue_total", DAY, Decimal("10.02"), Decimal("10.01"))
    assert compare().differences == [expected]
    out = StringIO()
    with pytest.raises(CommandError, match=r"^1 of 6 figures differ; 0 events are under way\. "):
        call_command("check_sales_metrics", stdout=out)
    assert out.getvalue() == f"revenue_total [{DAY}]: the figure is 10.02, the recount 10.01\n"


@pytest.mark.parametrize(
    ("metric_name", "dimension"),
    [
        ("orders_total", "all"),
        ("orders_total", "CREATED"),
        ("revenue_total", "all"),
        ("orders_per_minute", MINUTE),
        ("top_products", "p1"),
    ],
)
def test_damage_to_each_metric_is_found(metric_name: str, dimension: str) -> None:
    place(at=NOON, lines=[("p1", 1, "10.01")])
    apply(order_events())
    _damage(metric_name, dimension, "-1")
    assert [(each.metric_name, each.dimension) for each in compare().differences] == [
        (metric_name, dimension)
    ]


def test_a_figure_that_is_lost_or_made_up_is_found() -> None:
    place(at=NOON, lines=[("p1", 1, "1")])
    apply(order_events())
    fold_additions()
    SalesMetric.objects.filter(metric_name="top_products", dimension="p1").delete()
    SalesMetric.objects.create(
        metric_name="top_products", dimension="p9", value=5, updated_at=datetime.now(UTC)
    )
    assert compare().differences == [
        FigureDifference("top_products", "p1", Decimal(0), Decimal(1)),
        FigureDifference("top_products", "p9", Decimal(5), Decimal(0)),
    ]


def test_zero_is_the_same_as_absent() -> None:
    SalesMetric.objects.create(
        metric_name="top_products", dimension="p9", value=0, updated_at=datetime.now(UTC)
    )
    order_id = place(at=NOON, lines=[("p1", 1, "0")])
    cancel(order_id)
    apply(order_events())
    found = compare()
    assert (found.different, found.figures) == (0, 3)  # all, CANCELLED, the minute


def test_a_cancellation_is_taken_from_the_day_of_creation() -> None:
    kept = place(at=NOON, lines=[("p1", 1, "3.50")])
    gone = place(at=NOON, lines=[("p1", 2, "5.25"), ("p2", 1, "1")])
    pay(kept)
    pay(gone)
    cancel(gone, at=NOON + timedelta(days=1))
    apply(order_events())
    assert figures() == {
        ("orders_total", "all"): 2,
        ("orders_total", "PAID"): 1,
        ("orders_total", "CANCELLED"): 1,
        ("orders_per_minute", MINUTE): 2,
        ("revenue_total", "all"): Decimal("3.50"),
        ("revenue_total", DAY): Decimal("3.50"),
        ("top_products", "p1"): 1,
    }
    found = compare()
    assert (found.different, found.figures) == (0, 7)


def test_days_and_minutes_are_those_of_utc() -> None:
    midnight = NOON.replace(hour=23, minute=59, second=59, microsecond=999_000)
    place(at=midnight, amount="1")
    place(at=midnight + timedelta(milliseconds=1), amount="2")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL timezone = 'Asia/Tokyo'")
    apply(order_events())
    assert SalesFigure.objects.filter(metric_name="revenue_total").count() == 3
    assert compare().different == 0


def test_every_prefix_of_a_history_equals_itsfigures() -> None:
    shipped = place(at=NOON, lines=[("p1", 2, "1.10")])
    cancelled = place(at=NOON, lines=[("p1", 1, "7.77"), ("p2", 4, "0.01")])
    pay(shipped)
    pay(cancelled)
    ship(shipped)
    cancel(cancelled)
    events = order_events()
    assert len(events) == 6
    for applied, event in enumerate(events):
        found = compare()
        assert (found.differences, found.under_way) == ([], 6 - applied)
        apply([event])
    found = compare()
    assert (found.differences, found.under_way) == ([], 0)


def test_an_event_without_its_receipt_is_a_difference() -> None:
    """The figures hold what no receipt vouches for: it would be counted again."""
    order_id = place(at=NOON, lines=[("p1", 1, "1")])
    pay(order_id)
    apply(order_events())
    InboxReceipt.objects.filter(event_id=order_events()[1].event_id).delete()
    found = compare()
    assert found.under_way == 1
    assert found.differences == [
        FigureDifference("orders_total", "CREATED", Decimal(0), Decimal(1)),
        FigureDifference("orders_total", "PAID", Decimal(1), Decimal(0)),
    ]


def test_a_lost_effect_is_a_difference() -> None:
    """A receipt without its effect."""
    order_id = place(at=NOON, lines=[("p1", 1, "1")])
    apply(order_events())
    cancel(order_id)
    InboxReceipt.objects.create(event_id=order_events()[1].event_id, handler="record_sales")
    assert compare().different == 5  # CANCELLED, CREATED, revenue twice, p1


def test_a_parked_event_is_under_way_and_other_handlers_receipts_say_nothing() -> None:
    order_id = place(at=NOON, lines=[("p1", 1, "1")])
    apply(order_events())
    pay(order_id)
    event_id = order_events()[1].event_id
    parked = InboxReceipt.Outcome.PARKED
    InboxReceipt.objects.create(event_id=event_id, handler="record_sales", outcome=parked)
    InboxReceipt.objects.create(event_id=event_id, handler="another")
    found = compare()
    assert (found.different, found.under_way) == (0, 1)


def test_what_retention_took_counts_as_applied() -> None:
    order_id = place(at=NOON, lines=[("p1", 1, "1")])
    pay(order_id)
    apply(order_events())
    InboxReceipt.objects.all().delete()
    OutboxEvent.objects.all().delete()
    found = compare()
    assert (found.different, found.figures, found.under_way) == (0, 6, 0)


def foreign(product: str, *, total: str = "5") -> EventEnvelope:
    """An order of another producer, whose event our outbox does not hold."""
    event = OrderCreated(
        event_id=str(uuid4()),
        order_id="theirs",
        customer_id="c",
        total_price=Decimal(total),
        timestamp=rfc3339(NOON),
        created_at=rfc3339(NOON),
        items=(OrderItem(product_id=product, quantity=1, price=Decimal(total)),),
    )
    return EventEnvelope(
        event_id=UUID(event.event_id),
        type=event.type,
        topic="order-events",
        key=event.key,
        source="/theirs",
        time="",
        payload=event.to_json(),
    )


def test_events_of_others_are_named_and_compared_with_nothing() -> None:
    place(at=NOON, lines=[("p1", 3, "0.1")])
    record_sales([foreign("p1"), *map(envelope, order_events()), foreign("<theirs>")])
    InboxReceipt.objects.create(event_id=order_events()[0].event_id, handler="record_sales")
    for _ in ("before they are folded", "after"):
        found = compare()
        assert (found.different, found.figures, found.under_way) == (0, 6, 0)
        assert found.foreign_figures == 7
        assert figures()["revenue_total", "all"] == Decimal("10.30")
        lines = _check().splitlines()
        assert lines[0] == "Events of other producers are counted separately, in 7 figures:"
        assert "  revenue_total [all]: 10.00" in lines
        assert "  top_products [<theirs>]: 1.00" in lines
        assert lines[-1] == "All 6 figures equal the recount; 0 events are under way."
        fold_additions()
    _damage("top_products", "p1", "1")
    assert compare().differences == [FigureDifference("top_products", "p1", Decimal(4), Decimal(3))]
    with pytest.raises(CommandError, match="1 of 6 figures differ"):
        _check()


def test_figures_of_others_are_bounded_too() -> None:
    record_sales([foreign(f"p{number:03}") for number in range(DIFFERENCES_SHOWN)])
    found = compare()
    assert (len(found.foreign), found.foreign_figures) == (DIFFERENCES_SHOWN, DIFFERENCES_SHOWN + 5)
    lines = _check().splitlines()
    assert (len(lines), lines[-2]) == (DIFFERENCES_SHOWN + 3, "  … and 5 more")


def test_figures_that_are_set_aside_are_told() -> None:
    SetAsideFigure.objects.create(
        metric_name="top_products", dimension="p", value=1, is_foreign=True, written_at=NOON
    )
    assert _check().startswith("1 additions are set aside")


def test_minutes_past_the_kept_window_are_left_out() -> None:
    place(at=NOON - timedelta(days=8), amount="1")
    place(at=NOON, amount="1")
    apply(order_events())
    assert SalesFigure.objects.filter(metric_name="orders_per_minute").count() == 2
    assert compare().figures == 6  # two totals, two days and all revenue, one minute
    fold_additions()
    SalesMetric.objects.filter(metric_name="orders_per_minute", dimension__lt=MINUTE).delete()
    assert compare().different == 0
    SalesMetric.objects.filter(metric_name="orders_per_minute", dimension=MINUTE).delete()
    assert compare().different == 1


def test_differences_are_bounded_and_counted_in_full() -> None:
    count = DIFFERENCES_SHOWN + 7
    place(at=NOON, lines=[(f"p{number:03}", 1, "1") for number in range(count)])
    apply(order_events())
    fold_additions()
    SalesMetric.objects.filter(metric_name="top_products").delete()
    found = compare()
    assert (len(found.differences), found.different) == (DIFFERENCES_SHOWN, count)
    out = StringIO()
    with pytest.raises(CommandError, match=f"^{count} of {count + 5} figures differ"):
        call_command("check_sales_metrics", stdout=out)
    lines = out.getvalue().splitlines()
    assert (len(lines), lines[-1]) == (DIFFERENCES_SHOWN + 1, "… and 7 more")


def test_any_history_applied_to_any_depth_is_equal() -> None:
    dice = random.Random(20261121)
    orders = []
    for _ in range(60):
        at = NOON - timedelta(hours=dice.randrange(120), seconds=dice.randrange(3600))
        if dice.random() < 0.3:
            orders.append(place(at=at, amount=f"{dice.randrange(1, 10**6) / 100:.2f}"))
            continue
        lines = [
            (f"p{dice.randrange(9)}", dice.randrange(1, 9), f"{dice.randrange(10**5) / 100:.2f}")
            for _ in range(dice.randrange(1, 5))
        ]
        orders.append(place(at=at, lines=lines))
    for order_id in orders:
        for change in dice.choice([(), (pay,), (pay, ship), (cancel,), (pay, cancel)]):
            change(order_id)
    waiting = 0
    for order_id in orders:
        events = order_events(order_id)
        depth = dice.randrange(len(events) + 1)
        apply(events[:depth])
        waiting += len(events) - depth
    found = compare()
    assert waiting > 0
    assert (found.differences, found.under_way) == ([], waiting)
    for order_id in orders:
        apply(order_events(order_id))
    assert (compare().differences, compare().under_way) == ([], 0)
