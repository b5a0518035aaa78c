"""The relay on real servers: what becomes of every message, and what Kafka gets of it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import redis
from django.conf import settings

from devtools.relay import broker, evidence
from devtools.relay.account import RelayAccount, account
from devtools.relay.messages import BAD, Message, numbered
from devtools.testing.installed import needs_rabbitmq, on_the_stand_in
from devtools.testing.receiver import spans_in_memory
from devtools.testing.relay import a_policy, relaying, settled, until
from outbox.breaker import machine
from outbox.kafka import admin
from outbox.kafka.log_reader import read_topic
from outbox.rabbitmq.message import digest_of
from outbox.rabbitmq.policy import RelayPolicy
from outbox.topics import Topic

pytestmark = needs_rabbitmq


def publish(policy: RelayPolicy, *messages: Message) -> None:
    broker.publish(policy.url, policy.queue, messages)


def judged(policy: RelayPolicy, sent: list[Message]) -> RelayAccount:
    return account(sent, evidence.found(policy))


def test_every_kind_of_message_ends_in_kafka_or_with_a_reason() -> None:
    policy = a_policy("kinds")
    good = [numbered("good", number) for number in range(200)]
    sent = [*good[:100], *BAD.values(), *good[100:]]
    publish(policy, *sent)
    with relaying(policy) as relay:
        settled(policy, relay)
    seen = judged(policy, sent)
    bad = sum(message.payload is None for message in BAD.values())
    if on_the_stand_in:
        seen.reordered.clear()  # it does not keep the order when a consumer begins again
    assert seen == RelayAccount(sent=len(sent), in_kafka=len(sent) - bad, dead=bad)


def test_what_kafka_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, headers, partition; a correlation id and a trace only where the message has one. The span
    of the batch links the trace."""
    spans = spans_in_memory(monkeypatch)
    policy = a_policy("headers")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    publish(
        policy,
        Message(
            b'{"event_id":"21","correlation_id":"c\\u00001","payload":{"a" : 1}}',
            headers={"traceparent": trace},
        ),
        Message(b'{"event_id":"foobar","correlation_id":null,"payload":"x"}'),
        Message(
            b'{"event_id":"a-little-bit-long-string","payload":[]}', headers={"traceparent": "x"}
        ),
    )
    with relaying(policy) as relay:
        settled(policy, relay)
    messages = {(message.key or b"").decode(): message for message in read_topic(policy.topic)}
    # The hashes of Kafka's own tests (UtilsTest.testMurmur2), modulo the partitions.
    hashes = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    assert {key: message.partition for key, message in messages.items()} == {
        key: (value & 0x7FFFFFFF) % 3 for key, value in hashes.items()
    }
    headers = {key: dict(message.headers) for key, message in messages.items()}
    time_ = headers["21"].pop("ce_time")
    assert time_ is not None
    assert time_.endswith(b"Z")
    assert headers["21"] == {
        "ce_specversion": b"1.0",
        "ce_id": b"21",
        "ce_type": b"relay.message",
        "ce_source": f"/relay/{policy.queue}".encode(),
        "ce_subject": b"21",
        "content-type": b"application/json",
        "correlation_id": b"c\x001",
        "traceparent": trace.encode(),
    }
    for other in ("foobar", "a-little-bit-long-string"):
        assert not {"correlation_id", "traceparent"} & headers[other].keys()
    assert messages["21"].value == b'{"a" : 1}'
    linked = [
        f"{link.context.trace_id:032x}" for s in spans.get_finished_spans() for link in s.links
    ]
    assert linked == [trace.split("-")[1]]


def test_a_topic_that_is_not_there_is_waited_for() -> None:
    policy = replace(a_policy("no-topic"), topic="relayed-made-later")
    policy = replace(policy, look_every=0.1, breaker_open=0.5)
    publish(policy, numbered("later", 1))
    with relaying(policy) as relay:
        until(
            lambda: relay.kafka.breaker.state(time.monotonic()) == machine.OPEN, "the breaker opens"
        )
        assert not relay.consuming.is_consuming
        admin.create([Topic(policy.topic, partitions=3)], replication_factor=1)
        settled(policy, relay)
    assert judged(policy, [numbered("later", 1)]).in_kafka == 1


def test_repetitions_and_ids_that_are_used_again() -> None:
    """In one batch, and later; the second payload is a dead letter."""
    policy = a_policy("repeated")
    first, other = numbered("same", 1), Message(b'{"event_id": "same-1", "payload": "other"}')
    publish(policy, first, first, other, numbered("same", 2))
    with relaying(policy) as relay:
        settled(policy, relay)
        publish(policy, first, other)
        settled(policy, relay)
    found = evidence.found(policy)
    assert sorted(event_id for _, event_id, _ in found.kafka) == ["same-1", "same-2"]
    reason = "event_id: was used with another payload before"
    assert found.letters == {other.body: [reason, reason]}


def test_a_message_at_the_topics_limit_and_one_beyond() -> None:
    """The limit is Kafka's own count of a batch; neighbours of a large one are not taken along."""
    policy = a_policy("limit", limit=20_000)
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        sizes = range(19_000, 20_100, 25)
        sent = [
            Message(
                b'{"event_id": "size-%d", "payload": "%b"}' % (size, b"s" * size),
                f"size-{size}",
                b'"%b"' % (b"s" * size),
            )
            for size in sizes
        ]
        publish(policy, *sent, *(numbered("beside", number) for number in range(50)))
        settled(policy, relay)
        assert relay._sending.replaced == 0, "Kafka was asked about what is known to be too large"
    found = evidence.found(policy)
    relayed = {event_id for _, event_id, _ in found.kafka}
    assert len([1 for event_id in relayed if event_id.startswith("beside-")]) == 50
    taken = [message.event_id in relayed for message in sent]
    assert taken == sorted(taken, reverse=True)
    assert 0 < sum(taken) < len(taken)
    assert len(found.letters) == len(taken) - sum(taken)


@pytest.mark.parametrize("dedupe", [True, False])
def test_stops_in_mid_stream_double_nothing(dedupe: bool) -> None:
    """What Kafka's client has is awaited, marked and acknowledged; the rest goes back."""
    policy = a_policy(f"stops-{dedupe}", dedupe=dedupe, workers=2)
    sent = [numbered("stop", number) for number in range(3000)]
    publish(policy, *sent)
    stopped_early = 0
    for _ in range(5):
        with relaying(policy) as relay:
            until(lambda: relay.delivered, "something is under way")
        stopped_early += broker.depth(policy.url, policy.queue) > 0
    with relaying(policy) as relay:
        settled(policy, relay)
    assert stopped_early > 2, "it was not stopped in mid-stream"
    assert judged(policy, sent) == RelayAccount(sent=len(sent), in_kafka=len(sent))


def test_a_missing_queue_is_made_durable() -> None:
    policy = a_policy("made")
    broker.delete(policy.url, policy.queue)
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        broker.declare(policy.url, policy.queue)  # refused if it were not durable


knows_of_deleted_queues = pytest.mark.skipif(
    on_the_stand_in, reason="the stand-in tells no consumer that its queue is gone"
)


@knows_of_deleted_queues
def test_a_deleted_queue_is_waited_for_and_the_next_one_is_left_as_it_is() -> None:
    policy = a_policy("deleted")
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        broker.delete(policy.url, policy.queue)
        until(lambda: not relay.consuming.is_consuming, "it knows that the queue is gone")
        assert not relay.rabbitmq_is_well
        time.sleep(1.5)  # longer than it takes to look again
        assert not relay.consuming.is_consuming
        broker.declare(policy.url, policy.queue, {"x-max-length": 1000})
        publish(policy, numbered("after", 1))
        settled(policy, relay)
    assert judged(policy, [numbered("after", 1)]).in_kafka == 1


@knows_of_deleted_queues
def test_a_deleted_queue_is_made_again_where_that_is_wanted() -> None:
    policy = a_policy("made-always", create_always=True)
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        before = relay.consuming.channels
        broker.delete(policy.url, policy.queue)
        until(lambda: not relay.consuming.is_consuming, "it knows that the queue is gone")
        until(lambda: relay.consuming.is_consuming, "it consumes again")
        assert relay.consuming.channels == before


def test_another_relays_message_waits_in_its_place_and_nobody_behind_it() -> None:
    policy = a_policy("busy", busy_every=0.1)
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        server.set("relay:owner:somebody", 1)
        server.set("event:busy-1", "claimed somebody")
        publish(policy, *(numbered("busy", number) for number in range(3)))
        with relaying(policy) as relay:
            until(lambda: relay.delivered == 2, "those behind it")
            assert not relay.is_idle
            assert server.get("event:busy-1") == b"claimed somebody"
            server.delete("relay:owner:somebody")  # it died
            settled(policy, relay)
    assert {event_id for _, event_id, _ in evidence.in_kafka(policy.topic)} == {
        "busy-0",
        "busy-1",
        "busy-2",
    }


def test_what_another_relay_published_meanwhile_is_a_repetition() -> None:
    policy = a_policy("done-elsewhere", busy_every=0.1)
    message = numbered("elsewhere", 1)
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        server.set("relay:owner:somebody", 1)
        server.set("event:elsewhere-1", "claimed somebody")
        publish(policy, message)
        with relaying(policy) as relay:
            until(lambda: relay.busy == 1, "it is busy")
            server.set("event:elsewhere-1", f"done {digest_of(message.payload or b'')}")
            settled(policy, relay)
        server.delete("relay:owner:somebody")
    assert evidence.in_kafka(policy.topic) == []


def test_a_channel_that_is_lost_in_mid_stream_doubles_nothing_even_without_redis() -> None:
    """The new tag takes the place of the old one while the send is under way."""
    policy = a_policy("lost-channel", dedupe=False, workers=3)
    sent = [numbered("lost", number) for number in range(4000)]
    publish(policy, *sent)
    with relaying(policy) as relay:
        for count in range(500, 3000, 500):
            until(lambda: relay.delivered > count, "it relays")  # noqa: B023
            relay.call(relay.consuming.give_back)
            relay.call(relay.consuming.take_again)
        settled(policy, relay)
    assert judged(policy, sent) == RelayAccount(sent=len(sent), in_kafka=len(sent))


def test_the_claim_of_a_lost_channel_is_free_for_others() -> None:
    """What one relay has claimed and not sent goes back: the next one must not wait for it."""
    policy = a_policy("handed-over", busy_every=0.1)
    message = numbered("handed", 1)
    with relaying(policy) as first, redis.Redis.from_url(settings.REDIS_URL) as server:
        until(lambda: first.consuming.is_consuming, "it consumes")
        first._sending._pause.until = float("inf")  # as if Kafka were left alone for a while
        publish(policy, message)
        until(lambda: server.get("event:handed-1"), "it is claimed")
        first.call(first.consuming.give_back)
        with relaying(policy) as second:
            settled(policy, second)
    assert judged(policy, [message]) == RelayAccount(sent=1, in_kafka=1)


def large_one(event_id: str) -> Message:
    """A body of 20 kB."""
    payload = b'"%b"' % (b"l" * 20_000)
    return Message(
        b'{"event_id": "%b", "payload": %b}' % (event_id.encode(), payload), event_id, payload
    )


def test_prefetch_follows_the_size_of_the_bodies() -> None:
    policy = a_policy("prefetch", first_prefetch=20, in_hand_bytes=300_000)
    small = [numbered("small", number) for number in range(600)]
    large = [large_one(f"large-{number}") for number in range(100)]
    publish(policy, *small)
    with relaying(policy) as relay:
        settled(policy, relay)
        until(lambda: relay.consuming.prefetch == 1000, "many small ones")
        publish(policy, *large)
        settled(policy, relay)
        until(lambda: relay.consuming.prefetch <= 100, "few large ones")
    assert judged(policy, [*small, *large]) == RelayAccount(sent=700, in_kafka=700)


def test_large_bodies_behind_small_ones_are_not_all_taken_in_hand() -> None:
    """The prefetch of the small ones would take a hundred times the bytes."""
    policy = a_policy("suddenly-large", first_prefetch=20, in_hand_bytes=300_000)
    small = [numbered("before", number) for number in range(600)]
    large = [large_one(f"huge-{number}") for number in range(200)]
    publish(policy, *small)
    with relaying(policy) as relay:
        settled(policy, relay)
        until(lambda: relay.consuming.prefetch == 1000, "many small ones")
        until(lambda: relay.consuming.is_consuming, "it consumes again")
        channels = relay.consuming.channels
        relay._sending._pause.until = float("inf")  # as if Kafka were left alone for a while
        publish(policy, *large)
        until(lambda: relay.consuming.channels > channels, "all in hand is given back")
        until(lambda: len(relay._in_hand) >= 10, "few are taken again")
        assert relay._in_hand.bytes <= policy.in_hand_excess * policy.in_hand_bytes
        relay._sending._pause.until = 0.0
        settled(policy, relay)
    assert judged(policy, [*small, *large]) == RelayAccount(sent=800, in_kafka=800)
