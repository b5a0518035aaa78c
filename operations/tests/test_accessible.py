"""Whoever does not see the page, or has no mouse: axe finds nothing on any page of ours, and all of it is
reached and pressed by keyboard. At a desk's and a phone's width, in light and dark, well and unwell."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from itertools import product
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from devtools.picture.unwell import make_unwell
from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.pipeline import settles
from devtools.testing.web import Web
from notifications.delivery.channels import channel_statuses
from operations.tests.people import cookie_of
from outbox.handlers.pause import handler_statuses, register_handlers
from outbox.models import OperatorAction

pytestmark = needs_chromium

WIDTHS = (1440, 390)
AXE = """
    axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(each =>
        [each.id, each.nodes.map(node => node.html.slice(0, 200) + ' ' + node.failureSummary)]))
"""
WIDER_THAN_THE_WINDOW = "document.documentElement.scrollWidth > innerWidth"
AT = """
    (() => { const at = document.activeElement, style = getComputedStyle(at);
        const box = at.getBoundingClientRect();
        return {what: at.getAttribute('aria-label') || at.id || at.textContent.trim(),
                seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
                      && box.width > 0 && box.left >= 0 && box.top < innerHeight && box.bottom > 0,
                body: at === document.body}; })()
"""
AT_NEXT_FRAME = f"""
    (async () => {{
        document.activeElement.scrollIntoView({{block: 'nearest'}});
        await new Promise(requestAnimationFrame);
        const at = {AT}; return at;
    }})()
"""
FOCUSABLE = """
    [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary, [tabindex]')]
        .filter(each => each.getClientRects().length).length
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.fixture
def site(web: Web, tab: Tab, permissions: None) -> str:
    """Its address, for a browser of an operator."""
    register_handlers(["record_sales"])
    cookie = cookie_of(User.objects.create_superuser("operator"))["Cookie"]
    address = f"http://127.0.0.1:{web.port}"
    tab.log_in(address, {settings.SESSION_COOKIE_NAME: cookie.partition("=")[2]})
    tab.show(width=1440)
    return address


@pytest.fixture
def unwell(site: str) -> list[str]:
    """Much is wrong, and somebody is at it. The pages that then have something to show."""
    return [*make_unwell().values()]


WELL = (
    *("/", "/ops/", "/ops/letters", "/ops/lanes", "/ops/relay-letters", "/ops/journey"),
    *("/ops/journey?id=nothing", "/ops/act/pause-handler?on=record_sales", "/ops/done/77"),
    *("/ops/act/pause-lanes?on=all", "/ops/act/reset-breaker?on=log/sms", "/ops/break-glass"),
)


def violations(tab: Tab, url: str) -> list[Any]:
    """At each width, in light and dark, as a reader sees the page who turns the phone or the light."""
    tab.show(width=WIDTHS[0])
    tab.go(url)
    script = resources.files("axe_core_python").joinpath("axe.min.js").read_text()
    tab.value(f"{script}; 0")
    found = []
    for width, scheme in product(WIDTHS, ("light", "dark")):
        tab.show(width=width, scheme=scheme)
        if tab.value(WIDER_THAN_THE_WINDOW):
            found.append((url, width, scheme, "wider than the window"))
        found += [(url, width, scheme, *each) for each in tab.promised(AXE)]
    return found


def test_axe_finds_nothing(site: str, tab: Tab) -> None:
    assert [each for path in WELL for each in violations(tab, site + path)] == []


def test_axe_finds_nothing_while_much_is_wrong(site: str, unwell: list[str], tab: Tab) -> None:
    assert [each for path in unwell for each in violations(tab, site + path)] == []


def test_axe_finds_what_is_wrong(site: str, tab: Tab) -> None:
    """Else the tests above say nothing."""
    tab.go(site + "/ops/")
    tab.value("document.querySelector('.search label').remove()")
    tab.value("document.querySelector('#id').removeAttribute('placeholder')")
    # not in what is renewed every second
    tab.value("document.querySelector('.search button').style.color = '#bbb'")
    script = resources.files("axe_core_python").joinpath("axe.min.js").read_text()
    tab.value(f"{script}; 0")
    assert {"label", "color-contrast"} <= {each[0] for each in tab.promised(AXE)}


def reaches_everything(tab: Tab, url: str) -> bool:
    """Tab by Tab from the beginning of the page, each seen while the focus is on it."""
    tab.go(url)
    reached = []
    there = tab.value(FOCUSABLE)
    for _ in range(there + 20):
        tab.press("Tab")
        at = tab.value(AT)
        if at["body"]:
            break
        # fresh numbers may just have pushed it out of the window
        assert at["seen"] or tab.promised(AT_NEXT_FRAME)["seen"], at
        reached.append(at["what"])
    assert reached[0] == "To the content"
    return bool(len(reached) >= min(there, tab.value(FOCUSABLE)))


@pytest.mark.parametrize("path", ["/ops/", "/ops/letters", "/ops/lanes", "/ops/journey"])
def test_the_keyboard_reaches_everything_and_it_is_seen_where_one_is(
    site: str, tab: Tab, path: str
) -> None:
    # What the tests before have left may go or come in the middle of a pass.
    assert any(reaches_everything(tab, site + path) for _ in range(3))
    tab.press("Tab", shift=True)


def test_the_first_key_leads_past_the_head(site: str, tab: Tab) -> None:
    tab.go(site + "/ops/lanes")
    tab.press("Tab")
    tab.press("Enter")
    assert settles(lambda: tab.value("location.hash") == "#main")
    tab.press("Tab")
    assert tab.value("document.querySelector('main').contains(document.activeElement)")


def test_a_handler_is_paused_by_keyboard_alone(site: str, tab: Tab) -> None:
    tab.go(site + "/ops/")
    tab.value("document.querySelector('[aria-label=\"pause record_sales\"]').focus()")
    tab.press("Enter")
    assert settles(lambda: tab.value("document.activeElement?.id") == "why"), (
        "it begins at the reason"
    )
    tab.press("Enter")
    assert tab.value("location.pathname") == "/ops/act/pause-handler", (
        "without a reason nothing goes"
    )
    tab.call("Input.insertText", text="a look")
    tab.press("Tab")
    assert tab.value("document.activeElement.textContent") == "Yes, pause"
    tab.press(" ")
    assert settles(lambda: "/ops/done/" in tab.value("location.pathname"))
    assert handler_statuses(["record_sales"])[0].paused


def test_escape_leads_back_from_a_preview_and_nothing_is_done(site: str, tab: Tab) -> None:
    tab.go(site + "/ops/act/pause-channel?on=sms")
    tab.call("Input.insertText", text="a look")
    tab.press("Escape")
    assert settles(lambda: tab.value("location.pathname") == "/ops/")
    assert not any(status.paused for status in channel_statuses())
    assert not OperatorAction.objects.exists()


def test_lanes_are_chosen_by_keyboard(site: str, tab: Tab) -> None:
    tab.go(site + "/ops/lanes")
    tab.value("document.querySelector('[aria-label=\"lane 3\"]').focus()")
    tab.press(" ")
    assert tab.value("document.querySelector('[aria-label=\"lane 3\"]').checked")
    tab.value("document.querySelector('button[formaction]').focus()")
    tab.press("Enter")
    assert settles(lambda: "pause-lanes" in tab.value("location.pathname"))
    assert settles(
        lambda: tab.value("document.querySelector('h1')?.textContent") == "Pause 1 lane?"
    )
