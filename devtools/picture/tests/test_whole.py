"""A picture of a page shows all of it, also what the window does not."""

from __future__ import annotations

import struct

from devtools.picture.png import packed
from devtools.testing.browser import chromium

PAGE = "data:text/html,<!DOCTYPE html><body style='margin:0;height:3000px'>"


def test_a_page_is_as_long_as_it_is() -> None:
    with chromium() as browser:
        tab = browser.tab()
        tab.show(width=390)
        tab.go(PAGE)
        sizes = [struct.unpack(">II", packed(made)[16:24]) for made in (tab.whole(), tab.window())]
    assert sizes == [(390, 3000), (390, 900)]
