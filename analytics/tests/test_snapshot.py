"""Figures that stand side by side are of one moment, whatever is written meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from analytics import queries
from analytics.models import SalesAddition
from analytics.queries import SalesFigures
from analytics.services import fold_additions
from devtools.testing.patience import PATIENCE
from outbox.tests.admin_pages import log_in

READS = 300


def one_order(now: datetime) -> None:
    """All figures of one order, in one transaction: each of them grows by one."""
    figures = {
        ("orders_total", "all"),
        ("orders_total", "CREATED"),
        ("orders_per_minute", f"{now:%Y-%m-%dT%H:%M}"),
        ("revenue_total", "all"),
        ("revenue_total", f"{now:%Y-%m-%d}"),
        ("top_products", "p1"),
    }
    SalesAddition.objects.create(
        metric_names=[metric for metric, _ in figures],
        dimensions=[dimension for _, dimension in figures],
        values=[Decimal(1)] * len(figures),
        written_at=now,
    )


@contextmanager
def writing(now: datetime) -> Iterator[None]:
    """Two threads that write orders, and fold them now and then, until the end of the block."""
    stop, failed = threading.Event(), list[Exception]()

    def run(folds: bool) -> None:
        try:
            written = 0
            while not stop.is_set():
                one_order(now)
                written += 1
                if folds and written % 20 == 0:
                    fold_additions()
        except Exception as error:  # noqa: BLE001  (reported by the main thread)
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(folds,)) for folds in (True, False)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert failed == []


def of_summary(now: datetime) -> Mapping[str, int]:
    return _numbers(queries.summary(now=now))


def of_overview(now: datetime) -> Mapping[str, int]:
    found = queries.summary(now=now, days=30)
    return {**_numbers(found), "today": int(found.per_day[-1][1])}


def _numbers(summary: SalesFigures) -> dict[str, int]:
    return {
        "orders": summary.orders_total,
        "CREATED": summary.by_status["CREATED"],
        "revenue": int(summary.revenue_total),
        "minute": summary.per_minute[-1][1],
        "units": dict(summary.top_products).get("p1", 0),
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("read", [of_summary, of_overview])
def test_no_read_mixes_two_moments(read: Callable[[datetime], Mapping[str, int]]) -> None:
    now = datetime(2026, 3, 12, 12, 0, 30, tzinfo=UTC)
    with writing(now):
        found = [read(now) for _ in range(READS)]
    assert found[-1]["orders"] > found[0]["orders"]  # it was written meanwhile
    mixed = [numbers for numbers in found if len(set(numbers.values())) != 1]
    assert mixed == []


@pytest.mark.django_db
def test_each_page_of_figures_is_one_statement() -> None:
    one_order(timezone.now())
    client = Client()
    for path in ("/analytics/summary", "/analytics/metrics", "/analytics/top-products"):
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        assert len(captured) == 1, path
    operator = log_in()
    with CaptureQueriesContext(connection) as captured:
        assert operator.get("/admin/analytics/salesoverview/").status_code == 200
    assert sum("sales_" in query["sql"] for query in captured) == 1
