"""A browser that runs no scripts: every page is whole, says how it is renewed, and its forms act."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.pipeline import settles
from devtools.testing.web import Web
from operations.tests.browsers import logged_in
from outbox.handlers.pause import handler_statuses, register_handlers
from outbox.models import DeadLetter, OperatorAction, OutboxEvent
from outbox.tests.letters import HANDLER

pytestmark = needs_chromium

MOMENT = "document.querySelector('#live time')?.textContent"
NOSCRIPT = "[...document.querySelectorAll('noscript')].filter(each => each.children.length).length"
PARTS = ("The way of an event", "fan-out", "Business and pipeline", "Servers and processes")
TEXT = "document.querySelector('main').innerText"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        tab = browser.tab()
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        yield tab


@pytest.fixture
def site(web: Web, tab: Tab, permissions: None) -> str:
    register_handlers([HANDLER])
    return logged_in(tab, web.port)


@pytest.fixture
def event() -> OutboxEvent:
    """One that has not been applied, with its dead letter."""
    event = OutboxEvent.objects.create(
        event_id=uuid4(),
        lane=1,
        topic="order-events",
        key="key 7",
        type="ORDER_CREATED",
        source="/orders",
        payload="{}",
    )
    DeadLetter.objects.create(
        handler=HANDLER,
        event_id=event.event_id,
        topic=event.topic,
        key=event.key,
        state=DeadLetter.State.DEAD,
        error="ValueError: boom",
        payload='{"order_id": "6f2"}',
    )
    return event


def follow(tab: Tab, link: str) -> None:
    """Click on what has this name."""
    tab.value(
        "[...document.querySelectorAll('main a, main button')].find(each =>"
        f" (each.getAttribute('aria-label') || each.textContent.trim()) === {link!r}).click()"
    )


def is_at(tab: Tab, path: str) -> bool:
    loaded = f"document.readyState === 'complete' && location.pathname.startsWith({path!r})"
    return settles(lambda: bool(tab.value(loaded)))


def test_the_page_is_whole_and_a_link_renews_it(site: str, tab: Tab) -> None:
    def is_whole() -> bool:
        tab.go(f"{site}/ops/?span=day")
        return all(part in tab.value(TEXT) for part in PARTS)

    assert settles(is_whole), "a first look may come before PostgreSQL's answer"
    assert tab.value(NOSCRIPT), "the browser runs scripts"
    assert "as old as its loading" in tab.value(TEXT)
    before = tab.value(MOMENT)
    assert not settles(lambda: tab.value(MOMENT) != before, within=3), "no script renews it"
    tab.value("window.isOld = true")
    follow(tab, "Load it again")
    assert settles(lambda: bool(tab.value(f"!window.isOld && {MOMENT}")))
    assert tab.value("location.search") == "?span=day", "what was chosen stays chosen"


def test_search_and_letters_are_links_and_forms(site: str, tab: Tab, event: OutboxEvent) -> None:
    tab.go(f"{site}/ops/")
    tab.value(f"document.querySelector('#id').value = '{event.event_id}'")
    tab.value("document.querySelector('.search button').click()")
    assert is_at(tab, "/ops/journey")
    assert "ORDER_CREATED" in tab.value(TEXT)
    assert "ValueError: boom" in tab.value(TEXT)
    tab.go(f"{site}/ops/letters")
    follow(tab, "ValueError: boom")
    assert is_at(tab, "/ops/letters/")
    assert '"order_id": "6f2"' in tab.value(TEXT)


def test_an_action_is_previewed_and_done(site: str, tab: Tab) -> None:
    def button() -> bool:
        tab.go(f"{site}/ops/")
        return bool(tab.value(f"document.querySelector('[aria-label=\"pause {HANDLER}\"]')?.href"))

    assert settles(button), "the page may have looked before there was a handler"
    follow(tab, f"pause {HANDLER}")
    assert is_at(tab, "/ops/act/pause-handler")
    assert not handler_statuses([HANDLER])[0].paused
    follow(tab, "Yes, pause")
    assert tab.value("document.querySelector('#why').validity.valueMissing")
    assert not OperatorAction.objects.exists()
    tab.value("document.querySelector('#why').value = 'a look'")
    follow(tab, "Yes, pause")
    assert is_at(tab, "/ops/done/")
    assert handler_statuses([HANDLER])[0].paused
    assert OperatorAction.objects.get().why == "a look"
    assert "a look" in tab.value(TEXT)


def test_what_an_action_has_done_is_renewed_by_a_link(site: str, tab: Tab) -> None:
    """A run goes on for minutes."""
    run = OperatorAction.objects.create(by="ada", what="replay", subject="dead letters", why="x")
    tab.go(f"{site}/ops/done/{run.id}")
    assert "Load it again" in tab.value(TEXT)
    OperatorAction.objects.filter(id=run.id).update(done=7)
    follow(tab, "Load it again")
    banner = "document.querySelector('.banner')?.innerText ?? ''"
    assert settles(lambda: "7" in tab.value(banner))
