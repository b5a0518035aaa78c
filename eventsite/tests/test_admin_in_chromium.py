"""The lists of the admin as a browser shows them: no sideways scrolling, ids on one line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from apikeys.models import ApiKey
from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium
from devtools.testing.web import Web
from notifications.models import Batch, Notification, Template
from orders.models import Order, ProcessedEvent
from outbox.models import (
    BridgePosition,
    DeadLetter,
    HandlerControl,
    InboxReceipt,
    OutboxEvent,
    OutboxLane,
)

pytestmark = needs_chromium

DESK, PHONE = 1366, 390
ID = UUID("0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f")
HANDLER, TOPIC = "record_processed_events_of_a_long_name", "orders.created.of-a-long-name.dlq"
LISTS = {
    "outbox/outboxevent": ID,
    "outbox/deadletter": ID,
    "outbox/inboxreceipt": ID,
    "outbox/bridgeposition": None,
    "outbox/handlercontrol": None,
    "outbox/outboxlane": None,
    "orders/order": ID,
    "orders/processedevent": ID,
    "notifications/notification": ID,
    "notifications/batch": ID,
    "notifications/template": ID,
    "apikeys/apikey": None,
    "analytics/salesmetriclisting": None,
    "auth/user": None,
    "auth/group": None,
}
SIDEWAYS = """
    [document.scrollingElement, ...document.querySelectorAll('#changelist, #changelist .results')]
        .filter(each => each.scrollWidth > each.clientWidth)
        .map(each => [each.className || each.tagName, each.scrollWidth, each.clientWidth])
"""
BROKEN = """
    [...document.querySelectorAll('#result_list .id, #result_list .nowrap')].filter(each =>
        each.getBoundingClientRect().height > 1.9 * parseFloat(getComputedStyle(each).fontSize)
    ).map(each => each.textContent)
"""
# What a reader who marks the id and copies it gets.
COPIED = """
    (() => {
        const shown = [...document.querySelectorAll('#result_list .id')];
        const id = shown.find(each => each.textContent === '%s');
        if (!id) return shown.map(each => each.textContent).join();
        getSelection().selectAllChildren(id);
        return getSelection().toString();
    })()
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.fixture
def site(web: Web, tab: Tab) -> str:
    """Its address, for a browser that is logged in."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    url = f"http://127.0.0.1:{web.port}/admin/"
    tab.log_in(url, {name: morsel.value for name, morsel in client.cookies.items()})
    return url


def fill() -> None:
    """Rows with the longest that each column gets."""
    now = timezone.now()
    for key in (str(ID), "k" * 300):
        OutboxEvent.objects.create(
            event_id=ID if key == str(ID) else uuid4(),
            lane=1,
            topic=TOPIC,
            key=key,
            type="PAYMENT_COMPLETED",
            source="/orders",
            payload="{}",
            status=1,
            created_at=now,
            published_at=now + timedelta(seconds=12345),
            partition=11,
            offset=123_456_789_012,
        )
        DeadLetter.objects.create(
            handler=HANDLER,
            event_id=ID if key == str(ID) else uuid4(),
            topic=TOPIC,
            key=key,
            state=0,
            attempts=1000,
            error="ValueError:" + "x" * 300,
            next_attempt_at=now,
        )
    Order.objects.create(
        id=ID, customer_id="c" * 255, total=10**17, status="CREATED", created_at=now
    )
    ProcessedEvent.objects.create(event_id=ID, user_id="u" * 255, amount=10**9)
    Notification.objects.create(
        id=ID,
        caller="c" * 63,
        recipient="r" * 2048,
        channel="email",
        priority="normal",
        content="x",
        status="processing",
        retry_count=5,
        max_retries=5,
        error_message="E" * 500,
        expires_at=now,
        created_at=now,
        updated_at=now,
    )
    Batch.objects.create(id=ID, caller="c" * 63, total_count=1000, created_at=now)
    Template.objects.create(id=ID, caller="c" * 63, name="n" * 255, channel="email", body="x")
    InboxReceipt.objects.create(event_id=ID, handler=HANDLER)
    for handler in (HANDLER, "h" * 100):
        BridgePosition.objects.create(
            handler=handler,
            topic=TOPIC,
            partition=11,
            topic_id=ID,
            next_offset=123_456_789_012,
            paused=True,
            attempts=1000,
            last_error="E" * 500,
            failed_at=now,
        )
        HandlerControl.objects.create(
            handler=handler, paused=True, reason="r" * 500, changed_by="b" * 100, changed_at=now
        )
    OutboxLane.objects.filter(lane=3).update(
        paused=True, paused_reason="r" * 200, paused_by="b" * 100, paused_at=now
    )
    ApiKey.objects.create(
        name="n" * 63,
        prefix="ek_00000000",
        sha256=b"x" * 32,
        scopes=["orders:read", "orders:write", "analytics:read"],
        expires_at=now,
        revoked_at=now,
        last_used_at=now,
    )


def test_no_list_is_scrolled_sideways_and_ids_are_on_one_line(site: str, tab: Tab) -> None:
    fill()
    for path, wanted in LISTS.items():
        tab.show(width=DESK)
        tab.go(f"{site}{path}/")
        assert tab.complaints() == [], path
        assert tab.value("document.querySelectorAll('#result_list tbody tr').length") or path in {
            "auth/group",
            "analytics/salesmetriclisting",
        }
        assert tab.value(SIDEWAYS) == [], path
        assert tab.value(BROKEN) == [], path
        if wanted is not None:
            assert tab.value(COPIED % wanted) == str(wanted), path
        # On a phone the table may be wider than the page, the page itself is not.
        tab.show(width=PHONE)
        assert tab.value("document.scrollingElement.scrollWidth") <= PHONE, path


def test_the_preview_of_an_action_fits_too(site: str, tab: Tab) -> None:
    fill()
    tab.show(width=DESK)
    tab.go(f"{site}outbox/deadletter/")
    tab.browser.events.clear()
    tab.value(
        "document.querySelector('#action-toggle').click();"
        "document.querySelector('select[name=action]').value = 'replay';"
        "document.querySelector('#changelist-form').requestSubmit()"
    )
    tab.browser.wait_for("Page.loadEventFired")
    assert "Yes, replay" in tab.value("document.body.innerHTML")
    for width in (DESK, PHONE):
        tab.show(width=width)
        assert tab.value("document.scrollingElement.scrollWidth") <= width


def test_a_new_key_can_be_read_on_a_phone(site: str, tab: Tab) -> None:
    tab.show(width=PHONE)
    tab.go(f"{site}apikeys/apikey/add/")
    assert tab.value("document.scrollingElement.scrollWidth") <= PHONE
    tab.browser.events.clear()
    tab.value(
        "document.querySelector('input[name=name]').value = 'shop';"
        "document.querySelector('input[name=scopes]').click();"
        "document.querySelector('input[name=name]').form.requestSubmit()"
    )
    tab.browser.wait_for("Page.loadEventFired")
    assert len(tab.value("document.querySelector('#api-key').textContent")) == 76
    assert tab.value("document.scrollingElement.scrollWidth") <= PHONE
