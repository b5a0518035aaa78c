"""Kafka refuses, freezes and comes back; RabbitMQ and Redis go and come: nothing is lost or doubled
that need not be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from django.conf import settings
from prometheus_client import Counter
from structlog.testing import capture_logs

from devtools.relay import broker, evidence
from devtools.relay.account import RelayAccount, account
from devtools.relay.messages import Message, numbered
from devtools.testing import own_servers
from devtools.testing.installed import needs_apache_kafka, needs_rabbitmq
from devtools.testing.relay import a_policy, relaying, settled, until, waiting_letters
from outbox.breaker import machine
from outbox.kafka.config import client_config
from outbox.rabbitmq import metrics
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.relay_health import readiness_of

pytestmark = needs_rabbitmq

# Everything that waits, waits shortly.
IMPATIENT = {
    "waits_too_long": 0.4,
    "look_every": 0.1,
    "breaker_open": 0.5,
    "retry_initial": 0.01,
    "retry_max": 0.1,
}


def publish(policy: RelayPolicy, *messages: Message) -> None:
    broker.publish(policy.url, policy.queue, messages)


def judged(policy: RelayPolicy, sent: list[Message]) -> RelayAccount:
    return account(sent, evidence.found(policy))


def count(metric: Counter) -> float:
    """Of all relays of this process so far."""
    return float(metric._value.get())


def large(name: str, size: int = 30_000) -> Message:
    payload = b'"%b"' % (b"l" * size)
    return Message(b'{"event_id": "%b", "payload": %b}' % (name.encode(), payload), name, payload)


@needs_apache_kafka
@pytest.mark.parametrize("dedupe", [True, False])
def test_a_message_that_kafka_refuses_in_mid_batch(
    dedupe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It alone leaves its place; what shared its request keeps the order, once each."""
    policy = a_policy(f"refused-{dedupe}", limit=20_000, dedupe=dedupe, **IMPATIENT)
    good = [numbered("good", number) for number in range(900)]
    sent = [*good[:300], large("refused-1"), *good[300:600], large("refused-2"), *good[600:]]
    with relaying(policy) as relay, capture_logs() as logs:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        # As if the topic's limit had been lowered a moment ago.
        monkeypatch.setattr(relay._watch._question, "ask", lambda _: 1_000_000)
        until(lambda: relay._watch.limit == 1_000_000, "it believes in the limit")
        in_doubt = count(metrics.IN_DOUBT)
        publish(policy, *sent)
        settled(policy, relay)
        assert relay._sending.replaced > 0
        assert count(metrics.IN_DOUBT) == in_doubt, "Kafka has answered for each of them"
    tries = [log for log in logs if log["event"] == "message_refused"]
    for name in ("refused-1", "refused-2"):
        attempts = [log["attempts"] for log in tries if log["event_id"] == name]
        assert attempts == [1, 2, 3, 4, 5], "MAX_RETRIES times alone"
    found = evidence.found(policy)
    seen = account([message for message in sent if message in good], found)
    assert seen == RelayAccount(sent=900, in_kafka=900)
    reasons = [reason for reasons in found.letters.values() for reason in reasons]
    assert len(reasons) == 2
    assert all("Kafka refused it" in reason for reason in reasons)


@needs_apache_kafka
def test_a_writer_without_permission_waits_for_it() -> None:
    """The topic answers every question, and takes nothing. Nobody is in doubt about that."""
    policy = a_policy("forbidden", workers=1, **IMPATIENT)
    sent = [numbered("forbidden", number) for number in range(500)]
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        in_doubt = count(metrics.IN_DOUBT)
        with forbidden_to_write(policy.topic):
            publish(policy, *sent)
            until(lambda: "authorization" in relay._sending.trouble, "Kafka turns it away")
            until(lambda: not relay.kafka.is_well, "it says that Kafka takes nothing")
            assert relay._watch.is_well
            assert broker.depth(policy.url, policy.queue) >= 400 - policy.first_prefetch
        settled(policy, relay)
        until(lambda: relay.kafka.is_well, "it is well again")
        assert count(metrics.IN_DOUBT) == in_doubt
    assert judged(policy, sent) == RelayAccount(sent=500, in_kafka=500)


@contextmanager
def forbidden_to_write(topic: str) -> Iterator[None]:
    """Everybody may do everything to it but write, until the end of the block."""
    of_topic = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*")
    rules = [
        AclBinding(*of_topic, AclOperation.ALL, AclPermissionType.ALLOW),
        AclBinding(*of_topic, AclOperation.WRITE, AclPermissionType.DENY),
    ]
    client = AdminClient(client_config("test"))
    for made in client.create_acls(rules).values():
        made.result(30)
    try:
        yield
    finally:
        every = AclBindingFilter(*of_topic, AclOperation.ANY, AclPermissionType.ANY)
        for gone in client.delete_acls([every]).values():
            assert len(gone.result(30)) == len(rules)


def test_what_was_under_way_in_a_producer_that_is_replaced_is_in_doubt() -> None:
    policy = a_policy("in-doubt", workers=1, **IMPATIENT)
    sent = [numbered("doubt", number) for number in range(300)]
    with relaying(policy) as relay:
        until(lambda: relay._sending._stream is not None, "a producer waits for the first message")
        publish(policy, numbered("before", 1))
        settled(policy, relay)
        kafka = own_servers.kafka_unit()
        in_doubt = count(metrics.IN_DOUBT)
        kafka.pause()
        try:
            publish(policy, *sent)
            until(lambda: relay._sending.waited(time.monotonic()) > 1.0, "Kafka does not answer")
            relay.call(partial(setattr, relay._sending, "_ends_at", 0.0))  # as if it had died
            until(lambda: relay._sending.replaced, "it is replaced")
        finally:
            kafka.resume()
        settled(policy, relay)
    assert count(metrics.IN_DOUBT) > in_doubt
    seen = judged(policy, [numbered("before", 1), *sent])
    assert seen.in_kafka == 301
    assert seen.duplicates <= count(metrics.IN_DOUBT) - in_doubt


def test_kafka_frozen_and_woken() -> None:
    """The breaker opens, nothing more is taken, nothing is sent again when Kafka goes on."""
    policy = a_policy("frozen", workers=2, dedupe=False, **IMPATIENT)
    sent = [numbered("frozen", number) for number in range(3000)]
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        kafka = own_servers.kafka_unit()
        kafka.pause()
        try:
            publish(policy, *sent)
            until(
                lambda: relay.kafka.breaker.state(time.monotonic()) == machine.OPEN,
                "the breaker opens",
            )
            until(lambda: not relay.consuming.is_consuming, "it takes no more")
            assert not relay.kafka.is_well
            assert readiness_of(relay)().checks["kafka"] == "unhealthy"
            assert readiness_of(relay)().http_status(strict=False) == 503
            assert broker.depth(policy.url, policy.queue) >= 3000 - 2 * 200 - policy.first_prefetch
        finally:
            kafka.resume()
        settled(policy, relay)
        assert relay._sending.replaced == 0
    assert judged(policy, sent) == RelayAccount(sent=3000, in_kafka=3000)


@pytest.mark.parametrize("dedupe", [True, False])
def test_an_outage_longer_than_a_consumer_may_hold_its_messages(dedupe: bool) -> None:
    """They go back once, before RabbitMQ takes them, and are not sent again when Kafka is back."""
    policy = a_policy(
        f"held-{dedupe}", workers=1, dedupe=dedupe, **{**IMPATIENT, "hold_seconds": 1.0}
    )
    sent = [numbered("held", number) for number in range(500)]
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        kafka = own_servers.kafka_unit()
        kafka.pause()
        try:
            publish(policy, *sent)
            until(lambda: broker.depth(policy.url, policy.queue) == 500, "all are given back")
            channels = relay.consuming.channels
            looks = relay.looks
            until(lambda: relay.looks > looks + 15, "it takes none of them again")
            assert broker.depth(policy.url, policy.queue) == 500
            assert relay.consuming.channels == channels
        finally:
            kafka.resume()
        settled(policy, relay)
    assert judged(policy, sent) == RelayAccount(sent=500, in_kafka=500)


def test_rabbitmq_killed_and_started_again() -> None:
    policy = a_policy("rabbitmq-killed", workers=3)
    sent = [numbered("killed", number) for number in range(3000)]
    publish(policy, *sent)
    with relaying(policy) as relay:
        until(lambda: relay.delivered > 500, "it relays")
        server = own_servers.rabbitmq_unit()
        server.kill()
        until(lambda: not relay.rabbitmq_is_well, "it notices")
        server.start()
        server.wait_ready()
        settled(policy, relay, within=60)
    assert judged(policy, sent) == RelayAccount(sent=3000, in_kafka=3000)


@contextmanager
def full(server: redis.Redis) -> Iterator[None]:
    server.config_set("maxmemory", 1)
    try:
        yield
    finally:
        server.config_set("maxmemory", 0)


@contextmanager
def read_only(server: redis.Redis) -> Iterator[None]:
    server.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        server.replicaof("NO", "ONE")


@contextmanager
def frozen(_: redis.Redis) -> Iterator[None]:
    unit = own_servers.redis_unit()
    unit.pause()
    try:
        yield
    finally:
        unit.resume()


def test_redis_emptied_refusing_and_gone() -> None:
    """The relay goes on and counts it; only repetitions are not noticed meanwhile."""
    policy = a_policy("redis", redis_pause=0.1)
    sent = [numbered("redis", number) for number in range(2000)]
    with relaying(policy) as relay, redis.Redis.from_url(settings.REDIS_URL) as server:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        publish(policy, *sent[:500])
        server.flushall()
        server.script_flush()
        settled(policy, relay)
        for number, trouble in enumerate((full, read_only, frozen), start=1):
            without = count(metrics.DEDUPE_AWAY)
            with trouble(server):
                publish(policy, *sent[500 * number : 500 * (number + 1)])
                settled(policy, relay)
                assert readiness_of(relay)().status == "degraded"
            assert count(metrics.DEDUPE_AWAY) > without
        # Without any message: a repetition may go to another relay.
        until(lambda: server.get("event:redis-1900"), "what could not be marked is marked later")
        until(lambda: relay.dedupe_is_well, "Redis is back")
        publish(policy, numbered("back", 1), numbered("redis", 1900))
        settled(policy, relay)
        assert server.get("event:back-1")
    seen = judged(policy, [*sent, numbered("back", 1)])
    assert seen == RelayAccount(sent=2001, in_kafka=2001)


def test_two_relays_share_a_queue_and_one_goes() -> None:
    policy = a_policy("two", workers=2)
    sent = [numbered("two", number) for number in range(4000)]
    with relaying(policy) as first:
        until(lambda: first.consuming.is_consuming, "the first consumes")
        with relaying(policy) as second:
            until(lambda: second.consuming.is_consuming, "the second consumes")
            publish(policy, *sent, *sent[:50])
            until(lambda: first.delivered > 300 and second.delivered > 300, "both relay")
        settled(policy, first)
    assert not waiting_letters(policy)
    found = evidence.found(policy)
    assert sorted(event_id for _, event_id, _ in found.kafka) == sorted(m.event_id for m in sent)
