"""The page as a browser shows it: desk and phone, renewed by itself, one click from the preview."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.pipeline import settles
from devtools.testing.web import Web
from operations.tests.people import cookie_of
from outbox.handlers.pause import register_handlers
from outbox.models import HandlerControl

pytestmark = needs_chromium

WIDER_THAN_THE_WINDOW = "document.documentElement.scrollWidth > innerWidth"
WITHOUT_A_NAME = """
    [...document.querySelectorAll('a, button, input:not([type=hidden])')].filter(element =>
        !(element.textContent.trim() || element.getAttribute('aria-label') || element.labels?.length)
    ).map(element => element.outerHTML)
"""
MOMENT = "document.querySelector('#live time').textContent"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.fixture
def page(web: Web, tab: Tab, permissions: None) -> str:
    """Its address, for a browser of an operator."""
    register_handlers(["record_sales"])
    cookie = cookie_of(User.objects.create_superuser("operator"))["Cookie"]
    address = f"http://127.0.0.1:{web.port}"
    tab.log_in(address, {settings.SESSION_COOKIE_NAME: cookie.partition("=")[2]})
    return f"{address}/ops/"


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_has_a_name_for_everything(
    page: str, tab: Tab, width: int, scheme: str
) -> None:
    tab.show(width=width, scheme=scheme)
    tab.go(page)
    assert tab.complaints() == []
    assert not tab.value(WIDER_THAN_THE_WINDOW)
    assert tab.value(WITHOUT_A_NAME) == []
    host = urlsplit(page).netloc
    assert {urlsplit(url).netloc for url in tab.requested() if not url.startswith("data:")} == {
        host
    }
    names = [name for role, name in tab.heard() if role == "heading"]
    assert "The way of an event" in names


def test_it_is_renewed_and_keeps_the_focus(page: str, tab: Tab) -> None:
    tab.go(page)
    before = tab.value(MOMENT)
    tab.value("document.querySelector('[aria-label=\"pause record_sales\"]').focus()")
    assert settles(lambda: tab.value(MOMENT) != before)
    assert tab.value("document.activeElement.getAttribute('aria-label')") == "pause record_sales"
    assert tab.complaints() == []


def test_a_table_that_was_scrolled_stays_so(page: str, tab: Tab) -> None:
    """On a phone its last column would be out of reach, because it is made anew every second."""
    tab.show(width=390)
    tab.go(page)
    table = "[...document.querySelectorAll('#live .wide')].find(each => each.scrollWidth > each.clientWidth + 40)"
    assert tab.value(f"{table}.scrollLeft = 40, {table}.focus(), {table}.scrollLeft") == 40
    before = tab.value(MOMENT)
    assert settles(lambda: tab.value(MOMENT) != before)
    assert tab.value(f"{table}.scrollLeft") == 40
    assert tab.value(f"document.activeElement === {table}")
    tab.show(width=1440)


def test_a_click_leads_to_the_preview_and_from_there_to_what_was_done(page: str, tab: Tab) -> None:
    tab.go(page)
    tab.value("document.querySelector('[aria-label=\"pause record_sales\"]').click()")
    assert settles(lambda: "pause-handler" in tab.value("location.pathname"))
    assert settles(lambda: tab.value("Boolean(document.querySelector('#why'))"), within=60)
    assert tab.value(WITHOUT_A_NAME) == []
    assert not HandlerControl.objects.get(handler="record_sales").paused
    tab.value("document.querySelector('#why').value = 'a look'")
    tab.value("document.querySelector('button.does').click()")
    assert settles(lambda: "/ops/done/" in tab.value("location.pathname"), within=60)
    row = HandlerControl.objects.get(handler="record_sales")
    assert (row.paused, row.reason, row.changed_by) == (True, "a look", "operator")
