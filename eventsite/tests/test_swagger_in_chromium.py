"""Swagger's page as a browser shows it: what is sent when a reader presses Execute unread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.pipeline import settles
from devtools.testing.web import Web

pytestmark = needs_chromium

OF_OPERATION = "document.querySelector('#operations-orders-{} {}')"
HEAD, TRY_IT_OUT = ".opblock-summary-control", ".try-out__btn"
KEY_FIELD = 'tr[data-param-name="Idempotency-Key"] input'


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


def appeared(tab: Tab, operation: str, what: str) -> str:
    """The expression for a part of an operation, once it is on the page."""
    element = OF_OPERATION.format(operation, what)
    assert settles(lambda: bool(tab.value(f"!!{element}"))), f"{element} did not appear"
    return element


def test_no_idempotency_key_is_filled_in(refusing_web: Web, tab: Tab) -> None:
    """A filled-in key would be the same for every reader, and the second of them get a 422."""
    tab.go(f"http://127.0.0.1:{refusing_web.port}/swagger/")
    for operation in ("placeOrder", "payOrder", "shipOrder", "cancelOrder"):
        tab.value(f"{appeared(tab, operation, HEAD)}.click()")
        tab.value(f"{appeared(tab, operation, TRY_IT_OUT)}.click()")
        assert tab.value(f"{appeared(tab, operation, KEY_FIELD)}.value") == ""
