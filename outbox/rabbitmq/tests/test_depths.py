"""The relay counts the messages of its two queues: of queues that exist, of a missing one, and while RabbitMQ
does not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from devtools.relay import broker
from devtools.relay.messages import BAD, Message, numbered
from devtools.testing.installed import needs_rabbitmq
from devtools.testing.relay import a_policy, relaying, until
from devtools.testing.weather import Fault, Proxy, proxy_to
from outbox.process.rises import Rises
from outbox.rabbitmq.relay_health import figures

pytestmark = needs_rabbitmq

QUEUE, LETTERS = "relay_queue_messages", "relay_dead_letter_queue_messages"


def shown() -> tuple[float | None, float | None]:
    """Of the queue and of the dead-letter queue; None: not known."""
    now = figures()
    return now.get(QUEUE), now.get(LETTERS)


def test_the_depths_of_both_queues_are_told() -> None:
    policy = replace(a_policy("depths"), depths_every=0.1)
    broker.publish(policy.url, policy.queue, [numbered("d", number) for number in range(5)])
    with relaying(replace(policy, topic="relayed-nowhere")) as relay:
        until(lambda: shown() == (5, 0), "five wait, and there is no dead-letter queue yet")
        assert relay.consuming.channels == 1, "it asks on channels of their own"
    rises = Rises(settings.WIRING.alarms, [os.getpid()])
    large = Message(b'{"event_id": "large-1", "payload": "%b"}' % (b"l" * 1_100_000))
    broker.publish(policy.url, policy.queue, [BAD["no-json"], large])
    with relaying(policy) as relay:
        until(lambda: shown() == (0, 2), "two are dead letters")
        risen = rises.within([os.getpid()])
        assert risen["dead_letter_total"] == 2, "of both kinds together"
        assert relay.consuming.channels == 1


@pytest.fixture
def between() -> Iterator[Proxy]:
    address = urlsplit(a_policy("depths-away").url)
    with proxy_to(str(address.hostname), int(address.port or 5672)) as proxy:
        yield proxy


def test_they_are_not_known_while_rabbitmq_is_away(between: Proxy) -> None:
    policy = a_policy("depths-away")
    own = urlsplit(policy.url)
    url = policy.url.replace(f"{own.hostname}:{own.port}", f"127.0.0.1:{between.port}")
    with relaying(replace(policy, url=url, depths_every=0.1)):
        until(lambda: shown() == (0, 0), "both are empty")
        between.set(Fault.AWAY)
        until(lambda: shown() == (None, None), "nobody says so any more")
        between.set(Fault.NONE)
        until(lambda: shown() == (0, 0), "it is said again")
