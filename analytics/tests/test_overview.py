"""The page of charts: what it tells, who may see it, what it costs, what it may load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree as ET

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from analytics.models import MetricName, SalesMetric
from outbox.tests.admin_pages import COUNT, assert_every_page_is_bounded, fill, log_in, visit

pytestmark = pytest.mark.django_db

PAGE = "/admin/analytics/salesoverview/"


@pytest.fixture
def operator() -> Client:
    return log_in()


def store(figures: Mapping[tuple[MetricName, str], str]) -> None:
    SalesMetric.objects.bulk_create(
        SalesMetric(
            metric_name=metric, dimension=dimension, value=Decimal(value), updated_at=timezone.now()
        )
        for (metric, dimension), value in figures.items()
    )


def a_shop(now: datetime) -> None:
    """Some figures of every kind."""
    store(
        {
            (MetricName.ORDERS_TOTAL, "all"): "4711",
            (MetricName.ORDERS_TOTAL, "CREATED"): "1000",
            (MetricName.ORDERS_TOTAL, "PAID"): "700",
            (MetricName.ORDERS_TOTAL, "SHIPPED"): "3000",
            (MetricName.ORDERS_TOTAL, "CANCELLED"): "11",
            (MetricName.REVENUE_TOTAL, "all"): "9400.10",
            (MetricName.REVENUE_TOTAL, f"{now:%Y-%m-%d}"): "1234.56",
            (MetricName.REVENUE_TOTAL, f"{now - timedelta(days=29):%Y-%m-%d}"): "7",
            (MetricName.REVENUE_TOTAL, f"{now - timedelta(days=30):%Y-%m-%d}"): "31337",
            (MetricName.ORDERS_PER_MINUTE, f"{now - timedelta(minutes=30):%Y-%m-%dT%H:%M}"): "17",
            (MetricName.TOP_PRODUCTS, "<b>beans</b> & milk"): "1500",
            (MetricName.TOP_PRODUCTS, "mug"): "750",
        }
    )


def test_it_tells_every_figure_in_numbers(operator: Client) -> None:
    a_shop(timezone.now())
    text = operator.get(PAGE).content.decode()
    for figure in ("4,711", "9,400.10", "2.00", "1,234.56", "3,000", "63.7 %", "1,500", "750"):
        assert f">{figure}<" in text, figure
    assert "17 orders in 60 minutes; the most, 17 orders, at " in text
    assert "1,241.56 in 30 days; the most, 1,234.56, at " in text  # the 31st day is left out
    assert "31,337" not in text
    assert len(re.findall(r'<th scope="row">20\d\d-', text)) == 30  # days of the table, not minutes
    assert len(re.findall(r'<th scope="row">\d\d:\d\d UTC</th>', text)) == 60


def test_what_people_have_written_is_escaped(operator: Client) -> None:
    a_shop(timezone.now())
    text = operator.get(PAGE).content.decode()
    assert "&lt;b&gt;beans&lt;/b&gt; &amp; milk" in text
    assert "<b>beans" not in text


def charts(text: str) -> list[ET.Element]:
    ours = text.partition('id="overview"')[2].partition('class="more"')[0]
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", ours, re.DOTALL)]


def test_every_chart_is_told_to_those_who_do_not_see_it(operator: Client) -> None:
    a_shop(timezone.now())
    text = operator.get(PAGE).content.decode()
    drawn = [chart for chart in charts(text) if chart.get("role") == "img"]
    assert len(drawn) == 2
    for chart in drawn:
        ids = (chart.get("aria-labelledby") or "").split()
        title, description = chart.find("title"), chart.find("desc")
        assert title is not None
        assert description is not None
        assert ids == [title.get("id"), description.get("id")]
        assert title.text
        assert description.text
    # All others only repeat what a table beside them says.
    others = [chart for chart in charts(text) if chart.get("role") != "img"]
    assert [chart.get("aria-hidden") for chart in others] == ["true"] * (2 + 1 + 4)
    assert text.partition('id="overview"')[2].count("<details>") == 2


def test_the_bars_are_as_high_as_their_numbers(operator: Client) -> None:
    a_shop(timezone.now())
    minutes, days = (
        chart for chart in charts(operator.get(PAGE).content.decode()) if chart.get("role") == "img"
    )
    heights = [
        [
            float(bar.get("height") or 0)
            for bar in chart.iter("rect")
            if "bar" in bar.get("class", "")
        ]
        for chart in (minutes, days)
    ]
    assert [len(each) for each in heights] == [60, 30]
    assert [height > 0 for height in heights[0]].count(True) == 1
    assert heights[1][0] == 2.0  # 7 beside 1,234.56: small, and to be seen
    assert heights[1][29] > 100


def test_without_orders_it_says_how_to_place_one(operator: Client) -> None:
    text = operator.get(PAGE).content.decode()
    assert "No orders yet" in text
    assert "curl -X POST http://testserver/orders" in text
    assert "<table" not in text.partition('id="overview"')[2]


def test_what_is_empty_says_so(operator: Client) -> None:
    """Simple orders of long ago: no products, nothing lately."""
    store({(MetricName.ORDERS_TOTAL, "all"): "1", (MetricName.ORDERS_TOTAL, "CANCELLED"): "1"})
    text = operator.get(PAGE).content.decode()
    for sentence in (
        "No orders in the last hour.",
        "No revenue in the last 30 days.",
        "No order with products yet.",
    ):
        assert sentence in text
    assert ">0.00<" in text  # the average of nothing


@pytest.mark.usefixtures("permissions")
def test_only_who_may_view_it_does(operator: Client) -> None:
    anonymous = Client().get(PAGE)
    assert (anonymous.status_code, anonymous["Location"][:13]) == (302, "/admin/login/")
    person = User.objects.create_user("person", is_staff=True)
    client = Client()
    client.force_login(person)
    assert client.get(PAGE).status_code == 403
    person.user_permissions.add(Permission.objects.get(codename="view_salesoverview"))
    assert client.get(PAGE).status_code == 200
    for page in ("/admin/", "/admin/analytics/"):
        assert f'href="{PAGE}"' in client.get(page).content.decode()
    assert operator.post(PAGE).status_code == 200  # nothing to post to: the same page
    assert operator.get(f"{PAGE}add/").status_code == 404


def test_its_policy_forbids_all_that_is_inline_or_from_elsewhere(operator: Client) -> None:
    a_shop(timezone.now())
    answer = operator.get(PAGE)
    policy = dict(
        each.strip().split(" ", 1) for each in answer["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    text = answer.content.decode()
    assert "<style" not in text
    assert not re.search(r'\sstyle="|\son\w+="|<script(?![^>]*\bsrc=)', text)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)


def test_it_touches_few_rows_whatever_there_is(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(
        monkeypatch,
        "sales_metrics",
        "INSERT INTO sales_metrics (metric_name, dimension, value, updated_at)"
        f" SELECT 'top_products', 'p' || i, i, now() FROM generate_series(1, {COUNT}) i"
        " UNION ALL SELECT 'orders_per_minute',"
        " to_char(now() AT TIME ZONE 'UTC' - make_interval(mins => i), 'YYYY-MM-DD\"T\"HH24:MI'),"
        f" i, now() FROM generate_series(0, {COUNT}) i"
        " UNION ALL SELECT 'revenue_total', to_char(now() - make_interval(days => i), 'YYYY-MM-DD'),"
        " 0.01, now() FROM generate_series(0, 3000) i"
        " UNION ALL SELECT 'orders_total', 'all', 4711, now()",
    )
    assert_every_page_is_bounded(operator, [PAGE])
    seen = visit(operator, PAGE)
    assert seen.rows <= 60
    assert ">p20000<" in seen.text
