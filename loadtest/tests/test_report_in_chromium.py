"""The page of a run as a browser shows it: it can be read on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from loadtest.histogram import Histogram
from loadtest.page import render
from loadtest.tests.test_report import busy, summary
from loadtest.verify import LoadVerdict

pytestmark = needs_chromium

DESK, PHONE = 1366, 390
LEAST_TEXT = 10  # CSS pixels; what is drawn in a picture shrinks with it
SMALL = f"""
    [...document.querySelectorAll('text, td, th, p, span')].filter(element => {{
        const scale = element.getScreenCTM ? element.getScreenCTM().a : 1;
        return parseFloat(getComputedStyle(element).fontSize) * scale < {LEAST_TEXT};
    }}).map(element => element.textContent)
"""
OUTSIDE = """
    [...document.querySelectorAll('text, td, th, figure, section')].filter(element => {
        const box = element.getBoundingClientRect();
        const card = element.closest('figure, section').getBoundingClientRect();
        return box.right > Math.min(card.right, innerWidth) + 1 || box.left < card.left - 1;
    }).map(element => element.textContent.slice(0, 80))
"""
IN_TWO_LINES = """
    [...document.querySelectorAll('.percentiles td')].filter(element => {
        const range = document.createRange();
        range.selectNodeContents(element);
        return range.getClientRects().length > 1;
    }).map(element => element.textContent)
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_it_can_be_read(tmp_path: Path, tab: Tab, width: int) -> None:
    effect = Histogram()
    for slow in (80_000, 9_999_000, 12_345_000):
        effect.record(slow)
    verdict = LoadVerdict(how="database", missing=2, effect=effect, figures=0, stored_twice=1)
    page = tmp_path / "load.html"
    page.write_text(render(summary(busy(), verdict, "lost>0", "p99>1s")))
    tab.show(width=width)
    tab.go(page.as_uri())
    assert tab.value("document.querySelectorAll('figure').length") == 4
    assert tab.value("document.scrollingElement.scrollWidth") <= width
    assert tab.value(SMALL) == []
    assert tab.value(OUTSIDE) == []
    assert tab.value(IN_TWO_LINES) == []
