"""The answers of the analytics API, field for field."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from analytics import queries
from analytics.models import SalesAddition, SalesMetric

pytestmark = pytest.mark.django_db

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
AT = datetime(2026, 3, 12, 12, 0, 0, 5000, tzinfo=UTC)


@pytest.fixture(params=["folded", "added", "both"], autouse=True)
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is the same whether what was added has been folded or not."""
    monkeypatch.setitem(globals(), "KEPT", request.param)


KEPT = ""


def store(metric: str, dimension: str, value: str) -> None:
    """A figure as it is kept; of "both" some is folded and some still to come."""
    rest = Decimal({"folded": "0", "added": value, "both": "3"}[KEPT])
    if KEPT != "added":
        SalesMetric.objects.create(
            metric_name=metric, dimension=dimension, value=Decimal(value) - rest, updated_at=AT
        )
    if KEPT != "folded":
        SalesAddition.objects.create(
            metric_names=[metric], dimensions=[dimension], values=[rest], written_at=AT
        )


def get(path: str) -> Any:
    answer = Client().get(path)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    return answer.json()


def test_summary_of_nothing() -> None:
    answer = get("/analytics/summary")
    minutes = answer.pop("orders_per_minute")
    assert MOMENT.fullmatch(answer.pop("as_of"))
    assert answer == {
        "orders_total": 0,
        "revenue_total": 0,
        "by_status": {"CREATED": 0, "PAID": 0, "SHIPPED": 0, "CANCELLED": 0},
        "top_products": [],
    }
    assert [minute["count"] for minute in minutes] == [0] * 60


def test_summary() -> None:
    now = timezone.now()
    store("orders_total", "all", "7")
    store("orders_total", "PAID", "4")
    store("orders_total", "CANCELLED", "3")
    store("revenue_total", "all", "123456789012345678.5")
    store("revenue_total", "2026-03-12", "1")
    store("orders_per_minute", f"{now:%Y-%m-%dT%H:%M}", "5")
    store("orders_per_minute", f"{now - timedelta(minutes=30):%Y-%m-%dT%H:%M}", "2")
    store("orders_per_minute", f"{now - timedelta(minutes=70):%Y-%m-%dT%H:%M}", "99")
    for number in range(12):
        store("top_products", f"p{number:02}", str(number))
    raw = Client().get("/analytics/summary").content.decode()
    for whole in ('"orders_total":7,', '"PAID":4,', '"count":5}', '"units":11}'):
        assert whole in raw
    assert '"revenue_total":123456789012345678.5,' in raw
    answer = get("/analytics/summary")
    assert list(answer) == [
        *("orders_total", "revenue_total", "by_status"),
        *("orders_per_minute", "top_products", "as_of"),
    ]
    assert answer["orders_total"] == 7
    assert answer["by_status"] == {"CREATED": 0, "PAID": 4, "SHIPPED": 0, "CANCELLED": 3}
    assert answer["top_products"] == [
        {"product_id": f"p{number:02}", "units": number} for number in range(11, 1, -1)
    ]
    assert get("/analytics/top-products") == answer["top_products"]
    counts = [minute["count"] for minute in answer["orders_per_minute"]]
    assert sum(counts) == 7
    as_of = datetime.fromisoformat(answer["as_of"])
    assert now - timedelta(milliseconds=1) <= as_of <= timezone.now()
    assert answer["orders_per_minute"][-1]["minute"] == f"{as_of:%Y-%m-%dT%H:%M}"


def test_the_last_sixty_minutes_in_order_zeros_included() -> None:
    now = datetime(2026, 3, 12, 0, 10, 59, 999_999, tzinfo=UTC)
    store("orders_per_minute", "2026-03-12T00:10", "3")
    store("orders_per_minute", "2026-03-11T23:11", "2")
    store("orders_per_minute", "2026-03-11T23:10", "1")  # the 61st
    minutes = queries.summary(now=now).per_minute
    assert len(minutes) == 60
    assert minutes[0] == ("2026-03-11T23:11", 2)
    assert minutes[-1] == ("2026-03-12T00:10", 3)
    assert sum(count for _, count in minutes) == 5
    first = datetime(2026, 3, 11, 23, 11, tzinfo=UTC)
    expected = [f"{first + timedelta(minutes=step):%Y-%m-%dT%H:%M}" for step in range(60)]
    assert [minute for minute, _ in minutes] == expected


def test_metrics() -> None:
    store("revenue_total", "all", "42.50")
    store("orders_total", "all", "2")
    store("top_products", "p1", "70")
    assert get("/analytics/metrics") == [
        {
            "metric_name": name,
            "dimension": dimension,
            "value": value,
            "updated_at": "2026-03-12T12:00:00.005Z",
        }
        for name, dimension, value in (
            ("orders_total", "all", 2),
            ("revenue_total", "all", 42.5),
            ("top_products", "p1", 70),
        )
    ]
    assert '"value":42.5,' in Client().get("/analytics/metrics").content.decode()


EVERYTHING = ["orders_total:all", "revenue_total:2026", "revenue_total:all", "top_products: p 1 "]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", EVERYTHING),
        ("?metric_name=revenue_total", ["revenue_total:2026", "revenue_total:all"]),
        ("?dimension=all", ["orders_total:all", "revenue_total:all"]),
        ("?metric_name=orders_total&dimension=all", ["orders_total:all"]),
        ("?metric_name=orders_total&dimension=nothing", []),
        ("?dimension=%20p%201%20", ["top_products: p 1 "]),
        ("?limit=1", ["orders_total:all"]),
        ("?limit=1&unknown=1", ["orders_total:all"]),
    ],
)
def test_metrics_filters(query: str, found: list[str]) -> None:
    store("revenue_total", "all", "1")
    store("revenue_total", "2026", "1")
    store("orders_total", "all", "1")
    store("top_products", " p 1 ", "1")
    rows = get(f"/analytics/metrics{query}")
    assert [f"{row['metric_name']}:{row['dimension']}" for row in rows] == found


def test_top_products() -> None:
    for product, units in (("b", "5"), ("a", "5"), ("c", "9"), ("all cancelled", "0")):
        store("top_products", product, units)
    assert get("/analytics/top-products") == [
        {"product_id": "c", "units": 9},
        {"product_id": "a", "units": 5},
        {"product_id": "b", "units": 5},
    ]
    assert get("/analytics/top-products?limit=1") == [{"product_id": "c", "units": 9}]
