"""The page at / as a browser shows it: on a desk and on a phone, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.web import Web

pytestmark = needs_chromium

DESK, PHONE = 1366, 390


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


def test_it_fits_a_desk_and_a_phone_in_light_and_dark(refusing_web: Web, tab: Tab) -> None:
    url = f"http://127.0.0.1:{refusing_web.port}/"
    colours = set()
    for width, scheme in ((DESK, "light"), (PHONE, "dark"), (PHONE, "light"), (DESK, "dark")):
        tab.show(width=width, scheme=scheme)
        tab.go(url)
        assert tab.complaints() == []
        asked = {urlsplit(each).netloc for each in tab.requested() if each.startswith("http")}
        assert asked == {urlsplit(url).netloc}
        assert tab.value("document.scrollingElement.scrollWidth") <= width
        assert [name for role, name in tab.heard() if role == "heading"] == [
            "Orders and analytics",
            "What runs: ready",
            "Where to look",
            "Try it",
        ]
        colours.add((scheme, tab.value("getComputedStyle(document.body).backgroundColor")))
    assert len({colour for _, colour in colours}) == len(colours) == 2
