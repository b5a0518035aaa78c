"""The relay under test: in a thread of the test, on the servers of this worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from django.conf import settings

from devtools.relay import broker
from devtools.testing import own_servers
from devtools.testing.patience import PATIENCE
from outbox.kafka import admin
from outbox.rabbitmq.letters import look
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.relay import Relay
from outbox.topics import Topic

__all__ = ["a_policy", "relaying", "settled", "until", "waiting_letters"]

STOP_SECONDS = 12.0


def a_policy(name: str, **changes: Any) -> RelayPolicy:
    """A queue, its dead letters and a topic of three partitions, all new and empty, and no claims.

    The queue is durable and classic; `arguments` makes another.
    """
    arguments = changes.pop("arguments", None)
    limit = changes.pop("limit", admin.DEFAULT_MAX_MESSAGE_BYTES)
    url = changes.pop("url", "") or own_servers.rabbitmq_url()
    policy = RelayPolicy(
        url=url,
        queue=f"relay-{name}",
        topic=f"relayed-{name}",
        dedupe_url=settings.REDIS_URL,
    )
    policy = replace(policy, **changes)
    broker.delete(own_servers.rabbitmq_url(), policy.queue, policy.dead_letter_queue)
    broker.delete_exchange(own_servers.rabbitmq_url(), policy.exchange)
    broker.declare(own_servers.rabbitmq_url(), policy.queue, arguments)
    admin.create([Topic(policy.topic, partitions=3, max_message_bytes=limit)], replication_factor=1)
    forget_claims()
    return policy


def forget_claims() -> None:
    """Delete what the dedupe knows."""
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        for key in server.scan_iter("event:*", count=10_000):
            server.delete(key)


@contextmanager
def relaying(policy: RelayPolicy) -> Iterator[Relay]:
    """A relay that runs until the end of the block, and is stopped as by SIGTERM then."""
    relay = Relay(policy)
    failures: list[Exception] = []

    def run() -> None:
        try:
            relay.run()
        except Exception as error:  # noqa: BLE001  (raised again below)
            failures.append(error)

    thread = threading.Thread(target=run, name="relay-under-test", daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.request_stop()
        thread.join(STOP_SECONDS)
    assert not failures, failures[0]
    assert not thread.is_alive(), "the relay does not stop"


def until(condition: Callable[[], object], what: str, *, within: float = PATIENCE) -> None:
    """Wait for it. Raises AssertionError."""
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up, f"not within {within:.0f} s: {what}"
        time.sleep(0.02)


def settled(policy: RelayPolicy, relay: Relay, *, within: float = PATIENCE) -> None:
    """Until the queue is empty and the relay has nothing in hand."""
    url = own_servers.rabbitmq_url()
    until(
        lambda: not broker.depth(url, policy.queue) and relay.is_idle,
        "the queue is relayed",
        within=within,
    )


def waiting_letters(policy: RelayPolicy) -> int:
    """How many dead letters there are."""
    return len(look(policy).letters)
