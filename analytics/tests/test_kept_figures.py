"""How the figures are kept: folds beside writers, in batches, and minutes that are forgotten."""

from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from analytics.models import SalesAddition, SalesMetric
from analytics.services import MINUTES_KEPT, fold_additions, prune_orders_per_minute, record_sales
from analytics.tests.lives import NOON, Life, envelopes, figures, life
from devtools.testing.patience import PATIENCE
from orders.events import OrderItem
from outbox.envelope import EventEnvelope


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
def test_additions_are_folded_a_batch_at_a_time() -> None:
    chunk = envelopes(life("CREATED").events())
    for _ in range(25):
        record_sales(chunk)
    before = figures()
    with CaptureQueriesContext(connection) as captured:
        assert fold_additions(batch=10) == 25
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
def test_minutes_are_forgotten_a_batch_at_a_time() -> None:
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
        assert prune_orders_per_minute(now=NOON, batch=10) == 25
    assert len(captured) == 4  # 10, 10, 5 and none
    assert figures() == {}
