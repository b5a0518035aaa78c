"""Each action as somebody does it: from the page by clicks to the preview, a reason, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from devtools.relay import broker
from devtools.relay.messages import BAD
from devtools.testing.browser import Tab, chromium
from devtools.testing.installed import needs_chromium, needs_rabbitmq
from devtools.testing.pipeline import settles
from devtools.testing.relay import a_policy, relaying, until, waiting_letters
from devtools.testing.web import Web, web_process
from notifications.delivery.channels import pause_channel
from notifications.tests.samples import failed
from operations.tests.people import cookie_of
from operations.tests.test_runs import begin, dead
from outbox.handlers.pause import pause_handler, register_handlers
from outbox.lanes.pause import pause_lanes
from outbox.models import DeadLetter, OperatorAction
from outbox.process.heartbeat import Heartbeat
from outbox.rabbitmq.policy import RelayPolicy
from outbox.tests.letters import HANDLER, create_positions

pytestmark = needs_chromium

WHY = "a look <b>at it</b>"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.fixture(autouse=True)
def _rows(transactional_db: None, permissions: None) -> None:
    register_handlers([HANDLER])
    create_positions()


def opened(tab: Tab, web: Web) -> None:
    """The page, for an operator."""
    cookie = cookie_of(User.objects.create_superuser("operator"))["Cookie"]
    address = f"http://127.0.0.1:{web.port}"
    tab.log_in(address, {settings.SESSION_COOKIE_NAME: cookie.partition("=")[2]})
    tab.go(f"{address}/ops/")
    assert settles(lambda: has_letters_that_are_there(tab))


def has_letters_that_are_there(tab: Tab) -> bool:
    """At first the page may still show those of the test before, which are gone."""
    links = """[...document.querySelectorAll('a[href^="/ops/letters/"]')]"""
    shown = set(tab.value(f"{links}.map(each => Number(each.pathname.split('/').pop()))"))
    return DeadLetter.objects.filter(id__in=shown).count() == len(shown)


def press(tab: Tab, name: str) -> None:
    """What has this name, or one that begins so, once it is there. While PostgreSQL answers late a page comes
    without its buttons; then it is loaded again."""
    found = (
        "[...document.querySelectorAll('a, button, input')].find(each =>"
        f" (each.getAttribute('aria-label') || each.textContent.trim()).startsWith({name!r}))"
    )

    def is_there() -> bool:
        return bool(tab.value(f"Boolean({found})"))

    if not settles(is_there, within=20):
        tab.go(tab.value("location.href"))
    assert settles(is_there), (name, tab.value("location.href"))
    tab.value(f"{found}.click()")


def confirmed(tab: Tab) -> None:
    """The preview, which changes nothing; no reason, which does nothing; a reason."""
    before = rows()
    assert settles(lambda: tab.value("Boolean(document.querySelector('#why'))"))
    tab.value("document.querySelector('button.does').click()")
    assert tab.value("document.querySelector('#why').validity.valueMissing")
    assert tab.complaints() == []
    assert rows() == before
    tab.value(f"document.querySelector('#why').value = {WHY!r}")
    tab.value("document.querySelector('button.does').click()")
    assert settles(lambda: "/ops/done/" in tab.value("location.pathname"))
    shown = "document.body.textContent.includes"
    assert settles(lambda: tab.value(f"{shown}({WHY!r})"))


def rows() -> list[tuple[str, str, str, str]]:
    """What the log of operators has."""
    found = OperatorAction.objects.order_by("id")
    return [(row.by, row.what, row.subject, row.why) for row in found]


@dataclass(frozen=True)
class Case:
    """`prepare` makes what it is about; `clicks` lead from the page to the preview."""

    what: str
    subject: str
    clicks: tuple[str, ...]
    prepare: Callable[[], Any] = lambda: None


LETTERS = f"dead letters of {HANDLER}"
CASES = {
    "resume handler": Case(
        *("resume", f"handler {HANDLER}", (f"resume {HANDLER}",)),
        lambda: pause_handler(HANDLER, reason="before", by="ann"),
    ),
    "pause channel": Case("pause", "channel sms", ("pause sms",)),
    "resume channel": Case(
        *("resume", "channel sms", ("resume sms",)),
        lambda: pause_channel("sms", reason="before", by="ann"),
    ),
    "pause lane": Case("pause", "lane 3", ("lanes outbox", "lane 3", "Pause those")),
    "resume lanes": Case(
        *("resume", "lanes 0 to 63", ("lanes outbox", "Resume all")),
        lambda: pause_lanes([3], reason="before", by="ann"),
    ),
    "reset breaker": Case("reset", "breaker ", ("reset provider",)),
    "replay group": Case("replay", LETTERS, (f"replay {HANDLER}",), lambda: dead(3)),
    "discard group": Case("discard", LETTERS, (f"discard {HANDLER}",), lambda: dead(3)),
    "replay letter": Case("replay", "dead letter ", ("boom", "replay this"), lambda: dead(1)),
    "discard letter": Case("discard", "dead letter ", ("boom", "discard this"), lambda: dead(1)),
    "replay failed notifications": Case(
        "replay", "dead letters of notifications", ("replay notifications",), failed
    ),
    "stop run": Case(
        *("stop", "run ", ("look at discard", "stop")),
        lambda: begin("discard", dead(3)[-1], rate=1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_from_the_page_to_what_was_done(name: str, web: Web, tab: Tab) -> None:
    case = CASES[name]
    case.prepare()
    before = len(rows())
    opened(tab, web)
    for click in case.clicks:
        press(tab, click)
    confirmed(tab)
    [(by, what, subject, why)] = rows()[before:]
    assert (by, what, why) == ("operator", case.what, WHY)
    assert subject.startswith(case.subject)


@pytest.fixture(scope="module")
def policy(tab: Tab, django_db_setup: None) -> RelayPolicy:
    """It asks for Chromium first: where that is not installed, nothing else is looked for."""
    return a_policy("clicks")


@pytest.fixture(scope="module")
def web_with_rabbitmq(policy: RelayPolicy) -> Iterator[Web]:
    with web_process(RABBITMQ_URL=policy.url, RABBITMQ_QUEUE=policy.queue) as started:
        yield started


@needs_rabbitmq
@pytest.mark.parametrize(
    ("clicks", "what", "subject"),
    [
        (("replay unreadable",), "replay", "dead letters of the relay"),
        (("discard unreadable",), "discard", "dead letters of the relay"),
        (("body", "replay this"), "replay", "dead letter "),
        (("body", "discard this"), "discard", "dead letter "),
    ],
)
def test_letters_of_the_relay(
    policy: RelayPolicy,
    web_with_rabbitmq: Web,
    tab: Tab,
    clicks: tuple[str, ...],
    what: str,
    subject: str,
) -> None:
    a_policy("clicks")
    broker.publish(policy.url, policy.queue, [BAD["no-json"]])
    with relaying(policy):
        until(lambda: waiting_letters(policy) == 1, "it is a dead letter")
    relay = Heartbeat("relay", figures=lambda: {"relay_consuming": 1.0, "relay_kafka_up": 1.0})
    relay.beat()
    opened(tab, web_with_rabbitmq)
    press(tab, "dead letters RabbitMQ")
    for click in clicks:
        press(tab, click)
    confirmed(tab)
    relay.end()
    [(by, did, on, why)] = rows()
    assert (by, did, why) == ("operator", what, WHY)
    assert on.startswith(subject)
