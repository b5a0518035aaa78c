"""The figures' page in the admin: what it tells, that it changes nothing, what it costs."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.test import Client
from django.utils import timezone

from analytics.models import MetricName, SalesMetric
from outbox.tests.admin_pages import COUNT, assert_every_page_is_bounded, fill, log_in, visit

pytestmark = pytest.mark.django_db

FIGURES = "/admin/analytics/salesmetriclisting/"


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many products as a page may touch, and one figure besides."""
    fill(
        monkeypatch,
        "sales_metrics",
        "INSERT INTO sales_metrics (metric_name, dimension, value, updated_at)"
        f" SELECT 'top_products', 'p' || i, i, now() FROM generate_series(1, {COUNT}) i"
        " UNION ALL SELECT 'orders_total', 'all', 4711, now()",
    )


@pytest.mark.usefixtures("many")
def test_no_page_touches_more_rows_than_it_may(operator: Client) -> None:
    products = f"{FIGURES}?metric_name__exact=top_products"
    pages = [
        FIGURES,
        f"{FIGURES}?p=20",
        f"{FIGURES}?o=3",
        products,
        f"{products}&o=-4",
        f"{products}&p=20",
        f"{FIGURES}?metric_name__exact=orders_total",
        f"{FIGURES}?metric_name__exact=nothing",
        f"{FIGURES}?q=p77",
        f"{FIGURES}top_products:p77/change/",
    ]
    assert_every_page_is_bounded(operator, pages)


@pytest.mark.usefixtures("many")
def test_one_figure_is_found_by_the_primary_key(operator: Client) -> None:
    for page in (f"{FIGURES}?q=p77", f"{FIGURES}top_5Fproducts_3Ap77/change/"):
        seen = visit(operator, page)
        assert ("p77" in seen.text, 0 < seen.rows <= 4) == (True, True)


@pytest.mark.usefixtures("many")
def test_products_are_listed_with_the_best_seller_first(operator: Client) -> None:
    seen = visit(operator, f"{FIGURES}?metric_name__exact={MetricName.TOP_PRODUCTS}").text
    assert seen.index(">p20000<") < seen.index(">p19999<") < seen.index(">p19951<")
    assert ">p19950<" not in seen
    assert "4711" not in seen


def test_columns_without_an_index_cannot_be_asked_for(operator: Client) -> None:
    for query in ("value__gt=1", "metric_name__contains=a", "id=x"):
        assert operator.get(f"{FIGURES}?{query}").status_code == 400


def test_a_dimension_may_hold_anything(operator: Client) -> None:
    dimension = "a:b/<c> _2F%"
    SalesMetric.objects.create(
        metric_name=MetricName.TOP_PRODUCTS,
        dimension=dimension,
        value=Decimal("3.00"),
        updated_at=timezone.now(),
    )
    listing = visit(operator, FIGURES).text
    assert "a:b/&lt;c&gt; _2F%" in listing
    _, _, rest = listing.partition(f'href="{FIGURES}top')
    link = f"{FIGURES}top{rest.partition(chr(34))[0]}"
    detail = visit(operator, link)
    assert detail.status == 200
    assert "a:b/&lt;c&gt; _2F%" in detail.text


def test_nothing_can_be_changed(operator: Client) -> None:
    SalesMetric.objects.create(
        metric_name=MetricName.TOP_PRODUCTS, dimension="p", value=3, updated_at=timezone.now()
    )
    figure = f"{FIGURES}top_5Fproducts_3Ap"
    assert operator.get(f"{FIGURES}add/").status_code == 403
    assert operator.get(f"{figure}/delete/").status_code == 403
    assert operator.post(f"{figure}/change/", {"value": 9}).status_code == 403
    assert SalesMetric.objects.get().value == 3
