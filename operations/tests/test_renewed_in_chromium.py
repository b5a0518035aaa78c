"""By which way the page is renewed: pushed through its WebSocket; asked for where none comes through; and
where neither works, it says that what it shows is old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.pipeline import settles
from devtools.testing.weather import Fault, Proxy, proxy_to
from devtools.testing.web import Web
from operations.tests.browsers import logged_in

pytestmark = needs_chromium

MOMENT = "document.querySelector('#live time').textContent"
LOST = "!document.querySelector('#lost').hidden"
GREYED = "document.querySelector('#live').classList.contains('old')"
PUSHED, GREETED = "Network.webSocketFrameReceived", "Network.webSocketHandshakeResponseReceived"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.fixture
def page(web: Web, tab: Tab, permissions: None) -> str:
    return f"{logged_in(tab, web.port)}/ops/"


@contextmanager
def blocked(tab: Tab, *urls: str) -> Iterator[None]:
    """Nothing of this tab comes through to these addresses."""
    tab.call("Network.setBlockedURLs", urls=urls)
    try:
        yield
    finally:
        tab.call("Network.setBlockedURLs", urls=[])


def happened(tab: Tab) -> Sequence[str]:
    """What the browser has told since the page was loaded."""
    return [str(event.get("method")) for event in tab.browser.events]


def is_renewed(tab: Tab) -> bool:
    before = tab.value(MOMENT)
    return settles(lambda: tab.value(MOMENT) != before)


def test_it_is_pushed(page: str, tab: Tab) -> None:
    with blocked(tab, "*/ops/live"):
        tab.go(page)
        assert is_renewed(tab)
        assert is_renewed(tab)
        assert PUSHED in happened(tab)
        assert not tab.value(LOST)


@pytest.fixture
def between(web: Web) -> Iterator[Proxy]:
    with proxy_to("127.0.0.1", web.port) as proxy:
        yield proxy


def test_where_no_websocket_comes_through_it_is_asked_for(
    between: Proxy, tab: Tab, permissions: None
) -> None:
    between.set(Fault.NO_WEBSOCKET)
    tab.go(f"{logged_in(tab, between.port)}/ops/")
    assert is_renewed(tab)
    assert is_renewed(tab)
    assert not {PUSHED, GREETED} & set(happened(tab))
    assert any(url.endswith("/ops/live") for url in tab.requested())
    assert not tab.value(LOST)


def test_without_news_it_says_so_until_there_is_some(
    between: Proxy, tab: Tab, permissions: None
) -> None:
    tab.go(f"{logged_in(tab, between.port)}/ops/")
    assert is_renewed(tab)
    assert not tab.value(LOST)
    between.set(Fault.AWAY)  # for a browser the web process has ended
    assert settles(lambda: bool(tab.value(LOST)))
    assert tab.value(GREYED)
    alerts = [name for role, name in tab.heard() if role == "alert"]
    assert len(alerts) == 1, "a screen reader hears it"
    between.set(Fault.NONE)
    assert settles(lambda: not tab.value(LOST))
    assert not tab.value(GREYED)
    assert is_renewed(tab)
