"""The page of charts as a browser shows it: in a light and a dark room, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from analytics.models import SalesMetric
from analytics.tests.test_overview import PAGE, a_shop
from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.web import Web

pytestmark = needs_chromium

DESK, PHONE = 1280, 360
# What is drawn of the first chart: how many bars there are, how high the highest, in which colour.
BARS = """
    [...document.querySelectorAll('.bars')].map(chart => {
        const bars = [...chart.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect());
        return [bars.length, Math.round(Math.max(...bars.map(bar => bar.height)))];
    })
"""
INSIDE = """
    [...document.querySelectorAll('#overview *')].filter(element => {
        const box = element.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1);
    }).map(element => element.outerHTML.slice(0, 120))
"""
OUT_OF_ITS_CARD = """
    [...document.querySelectorAll('#overview .card text')].filter(element => {
        const box = element.getBoundingClientRect();
        const card = element.closest('.card').getBoundingClientRect();
        return box.right > card.right - 4 || box.left < card.left + 4;
    }).map(element => element.textContent)
"""
IN_TWO_LINES = """
    [...document.querySelectorAll('#overview .figure')].filter(element =>
        element.getBoundingClientRect().height > 2 * parseFloat(getComputedStyle(element).fontSize)
    ).map(element => element.textContent)
"""
COLOURS = """
    ['fill', 'backgroundColor'].map((name, index) => getComputedStyle(
        document.querySelector(['.bars .bar', '#overview .card'][index]))[name])
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.fixture
def page(web: Web, tab: Tab) -> str:
    """Its address, for a browser that is logged in."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    url = f"http://127.0.0.1:{web.port}{PAGE}"
    tab.log_in(url, {name: morsel.value for name, morsel in client.cookies.items()})
    return url


def test_the_charts_on_a_desk_and_on_a_phone_in_light_and_dark(page: str, tab: Tab) -> None:
    a_shop(timezone.now())
    colours = set()
    for width, scheme in ((DESK, "light"), (PHONE, "dark"), (PHONE, "light"), (DESK, "dark")):
        tab.show(width=width, scheme=scheme)
        tab.go(page)
        assert tab.complaints() == []
        assert {urlsplit(url).netloc for url in tab.requested() if url.startswith("http")} == {
            urlsplit(page).netloc
        }
        assert [count for count, _ in tab.value(BARS)] == [60, 30]
        assert all(height > 100 for _, height in tab.value(BARS))
        assert tab.value("document.scrollingElement.scrollWidth") <= width
        assert tab.value(INSIDE) == tab.value(OUT_OF_ITS_CARD) == []
        colours.add((scheme, *tab.value(COLOURS)))
    assert len(colours) == 2
    assert len({fill for _, fill, _ in colours}) == len({card for *_, card in colours}) == 2


def test_it_can_be_heard(page: str, tab: Tab) -> None:
    a_shop(timezone.now())
    tab.show(width=DESK)
    tab.go(page)
    heard = tab.heard()
    images = [name for role, name in heard if role in ("image", "img")]
    assert [name.partition(" 1")[0] for name in images] == ["Orders a minute", "Revenue a day"]
    assert all("the most" in name for name in images)
    headings = [name for role, name in heard if role == "heading"]
    assert headings[-4:] == [
        "Orders a minute",
        "Revenue a day",
        "Top products",
        "Orders by status",
    ]
    tab.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    opened = [role for role, _ in tab.heard()].count("row")
    assert opened - [role for role, _ in heard].count("row") == (60 + 1) + (30 + 1)
    assert ("rowheader", "<b>beans</b> & milk") in tab.heard()


def test_the_empty_page_fits_a_phone_too(page: str, tab: Tab) -> None:
    tab.show(width=PHONE)
    tab.go(page)
    assert tab.complaints() == []
    assert ("heading", "No orders yet") in tab.heard()
    assert tab.value("document.scrollingElement.scrollWidth") <= PHONE


def test_a_figure_is_read_in_one_line(page: str, tab: Tab) -> None:
    now = timezone.now()
    a_shop(now)
    for revenue, orders in (("60002226647.24", 3623), ("8123456.5", 1_234_567), ("900000.5", 1)):
        SalesMetric.objects.filter(metric_name="revenue_total").update(value=revenue)
        SalesMetric.objects.filter(metric_name="orders_total", dimension="all").update(value=orders)
        tab.go(page)
        for width in (DESK, 800, PHONE):
            tab.show(width=width)
            assert tab.value(IN_TWO_LINES) == [], width


def test_huge_figures_and_long_names_stay_inside(page: str, tab: Tab) -> None:
    now = timezone.now()
    a_shop(now)
    SalesMetric.objects.filter(metric_name="revenue_total").update(value="9999999999999999.99")
    SalesMetric.objects.filter(dimension="all").update(value="9999999999999999")
    SalesMetric.objects.create(
        metric_name="top_products", dimension="w" * 255, value=10**15, updated_at=now
    )
    tab.show(width=PHONE)
    tab.go(page)
    assert tab.value(INSIDE) == []
    assert tab.value("document.scrollingElement.scrollWidth") <= PHONE
