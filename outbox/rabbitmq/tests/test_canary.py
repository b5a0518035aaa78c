"""The relay's canary: how often, through which relay, and what its age says while nothing comes through."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from devtools.relay import broker
from devtools.relay.evidence import in_kafka
from devtools.relay.messages import numbered
from devtools.testing.installed import needs_rabbitmq
from devtools.testing.relay import a_policy, relaying, settled, until
from outbox.rabbitmq.canary import is_canary
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.relay import Relay
from outbox.rabbitmq.relay_health import figures

pytestmark = needs_rabbitmq

AGE = "relay_canary_age_seconds"


def canaries(policy: RelayPolicy) -> list[bytes]:
    """Payloads, of those in Kafka."""
    return [value for _, key, value in in_kafka(policy.topic) if is_canary(key)]


def test_it_goes_through_the_queue_into_kafka_again_and_again() -> None:
    policy = replace(a_policy("canary"), canary_every=0.1)
    before = figures()["events_published_total"]
    began = time.time()
    with relaying(policy) as relay:
        until(lambda: len(canaries(policy)) >= 2, "a second one after the first")
        assert figures()[AGE] < time.time() - began
        broker.publish(policy.url, policy.queue, [numbered("c", number) for number in range(3)])
        until(lambda: relay.delivered == 3, "messages beside them")
    assert {json.loads(payload)["eventType"] for payload in canaries(policy)} == {"CANARY"}
    assert figures()["events_published_total"] == before + 3, "canaries are not counted"


def is_sent(policy: RelayPolicy, relay: Relay) -> bool:
    """Whether one lies in the queue, or the relay has it in hand."""
    return broker.depth(policy.url, policy.queue) == 1 or len(relay._in_hand) > 0


def test_one_that_does_not_come_through_is_late_and_the_next_one_waits() -> None:
    policy = replace(a_policy("canary-late"), canary_every=0.1)
    with relaying(replace(policy, topic="relayed-nowhere")) as relay:
        until(lambda: is_sent(policy, relay), "it is sent")
        until(lambda: figures().get(AGE, 0.0) > 2, "its age grows")
        assert broker.depth(policy.url, policy.queue) + len(relay._in_hand) == 1
    with relaying(policy):
        until(lambda: canaries(policy), "a relay after it takes it")


def test_one_that_found_no_queue_is_sent_again_as_soon_as_there_is_one() -> None:
    policy = replace(a_policy("canary-early"), canary_every=0.1)
    with relaying(policy):
        until(lambda: canaries(policy), "the first comes through")
        broker.delete(policy.url, policy.queue)
        until(lambda: figures()[AGE] > 3, "those that follow are returned")
        broker.declare(policy.url, policy.queue)
        until(lambda: figures()[AGE] < 3, "one comes through")


def test_another_relay_may_take_it() -> None:
    policy = a_policy("canary-taken")
    sender = replace(policy, canary_every=0.1, topic="relayed-nowhere")
    with relaying(sender) as first:
        until(lambda: is_sent(policy, first), "it is sent")
    with relaying(policy) as second:
        until(lambda: canaries(policy), "it comes through")
        settled(policy, second)


def test_none_is_sent_where_none_is_wanted() -> None:
    policy = a_policy("canary-off")
    with relaying(policy) as relay:
        until(lambda: relay.looks > 2, "it has looked")
        assert AGE not in figures()
        assert not canaries(policy)


def test_an_id_that_only_looks_like_one_is_no_canary() -> None:
    assert is_canary("canary-1796000000000-" + "0f" * 16)
    for id_ in ("canary-1", "canary-in-a-mine", "canary-1796000000000-" + "0f" * 16 + "a", ""):
        assert not is_canary(id_)
