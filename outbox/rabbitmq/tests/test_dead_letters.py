"""What cannot be relayed: where its dead letter lies, what it says, and when it is acknowledged."""

from __future__ import annotations

import struct

import pytest
import redis
from django.conf import settings

from devtools.relay import broker, evidence
from devtools.relay.messages import BAD, Message, numbered
from devtools.testing.installed import needs_rabbitmq, on_the_stand_in
from devtools.testing.relay import a_policy, relaying, settled, until, waiting_letters
from outbox.rabbitmq.letters import look
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.properties import Properties

pytestmark = needs_rabbitmq


def publish(policy: RelayPolicy, *messages: Message) -> None:
    broker.publish(policy.url, policy.queue, messages)


def test_exchange_and_queue_are_made_durable_and_a_letter_says_where_it_came_from() -> None:
    policy = a_policy("letters-made")
    with broker.channel(policy.url) as channel:
        channel.exchange_declare("letters-source", "topic")
        channel.queue_bind(policy.queue, "letters-source", "orders.#")
        channel.basic_publish("letters-source", "orders.new", BAD["array"].body)
    with relaying(policy) as relay:
        settled(policy, relay)
    with broker.channel(policy.url) as channel:
        # Refused if they were there in any other way.
        channel.exchange_declare(policy.exchange, "direct", durable=True)
        channel.queue_declare(policy.dead_letter_queue, durable=True)
    [letter] = look(policy).letters
    assert (letter.exchange, letter.routing_key) == ("letters-source", "orders.new")
    assert (letter.kind, letter.body) == ("unreadable", BAD["array"].body)
    assert letter.time.endswith("Z")
    assert "body" in letter.reason


@pytest.mark.skipif(
    on_the_stand_in, reason="the stand-in does not find an exchange that is of another type"
)
def test_an_exchange_that_is_there_is_left_as_it_is() -> None:
    policy = a_policy("letters-kept")
    with broker.channel(policy.url) as channel:
        channel.exchange_declare(policy.exchange, "fanout")
    publish(policy, BAD["array"])
    with relaying(policy) as relay:
        settled(policy, relay)
    with broker.channel(policy.url) as channel:
        channel.exchange_declare(policy.exchange, "fanout")
    assert waiting_letters(policy) == 1


# Every type of https://www.rabbitmq.com/amqp-0-9-1-errata; a time in milliseconds is more than the
# client's own decoder bears.
EVERY_TYPE = {
    b"t": b"\x01",
    b"b": struct.pack(">b", -1),
    b"B": struct.pack(">B", 255),
    b"s": struct.pack(">h", -2),
    b"u": struct.pack(">H", 65_535),
    b"I": struct.pack(">i", -3),
    b"i": struct.pack(">I", 2**32 - 1),
    b"l": struct.pack(">q", -(2**40)),
    b"f": struct.pack(">f", 0.25),
    b"d": struct.pack(">d", 0.5),
    b"D": b"\x02" + struct.pack(">i", 314),
    b"S": struct.pack(">I", 3) + b"\xff\x00t",
    b"x": struct.pack(">I", 2) + b"\x00\xff",
    b"A": struct.pack(">I", 2) + b"t\x00",
    b"T": struct.pack(">Q", 2**41),
    b"F": struct.pack(">I", 4) + b"\x01at\x01",
    b"V": b"",
}


def test_headers_of_every_type_do_no_harm_and_stay_what_they_were() -> None:
    policy = a_policy("odd-headers")
    table = b"".join(b"\x02h" + kind + kind + value for kind, value in EVERY_TYPE.items())
    properties = Properties().decode(b"\x20\x00" + struct.pack(">I", len(table)) + table)
    with broker.channel(policy.url) as channel:
        for body in (numbered("odd", 1).body, BAD["no-json"].body):
            channel.basic_publish("", policy.queue, body, properties)
    with relaying(policy) as relay:
        settled(policy, relay)
    assert [event_id for _, event_id, _ in evidence.in_kafka(policy.topic)] == ["odd-1"]
    [letter] = look(policy).letters
    assert table in letter.properties.raw
    assert letter.properties.headers_shown()["hT"] == f"T:{2**41:016x}"


@pytest.mark.skipif(on_the_stand_in, reason="the stand-in has no quorum queues")
def test_a_message_that_a_quorum_queue_has_delivered_too_often() -> None:
    policy = a_policy("poison", arguments={"x-queue-type": "quorum"}, deliveries_at_most=3)
    message = numbered("poison", 1)
    publish(policy, message)
    for _ in range(3):
        with broker.channel(policy.url) as channel:
            until(lambda: channel.basic_get(policy.queue)[0], "it is there")
    with relaying(policy) as relay:
        settled(policy, relay)
        until(lambda: waiting_letters(policy), "it is a dead letter")
    [[reason]] = evidence.letters(policy).values()
    assert "delivered 3 times" in reason


def test_a_dead_letter_is_acknowledged_only_when_a_queue_has_it() -> None:
    """An exchange that leads nowhere returns it: the message stays, and its neighbours go on."""
    policy = a_policy("nowhere", letter_again=0.3)
    with relaying(policy) as relay:
        publish(policy, BAD["no-json"])
        until(lambda: waiting_letters(policy) == 1, "the first letter")
        with broker.channel(policy.url) as channel:
            channel.queue_delete(policy.dead_letter_queue)
        publish(policy, BAD["array"], numbered("beside", 1))
        until(
            lambda: waiting_letters(policy) == 1, "the queue is created again, and the letter sent"
        )
        settled(policy, relay)
    found = evidence.found(policy)
    assert list(found.letters) == [BAD["array"].body]
    assert [event_id for _, event_id, _ in found.kafka] == ["beside-1"]


@pytest.mark.skipif(on_the_stand_in, reason="the stand-in has no queue that refuses")
def test_a_dead_letter_queue_that_takes_no_more() -> None:
    """What it refuses stays unacknowledged, and keeps its claim until a queue has it."""
    policy = a_policy("full", letter_again=0.2, limit=20_000)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    broker.declare(policy.url, policy.dead_letter_queue, full)
    large = Message(b'{"event_id": "large-1", "payload": "%b"}' % (b"l" * 30_000))
    with relaying(policy) as relay, redis.Redis.from_url(settings.REDIS_URL) as server:
        publish(policy, BAD["no-json"])
        until(lambda: waiting_letters(policy) == 1, "one letter")
        publish(policy, large, numbered("beside", 1))
        until(lambda: relay._letters.refused > 1, "the other is refused, and tried again")
        until(lambda: relay.delivered == 1, "nobody waits for it")
        assert not relay.is_idle
        assert (server.get("event:large-1") or b"").startswith(b"claimed ")
        assert broker.take_all(policy.url, policy.dead_letter_queue) == [BAD["no-json"].body]
        settled(policy, relay)
        assert not server.exists("event:large-1")
    assert list(evidence.letters(policy)) == [large.body]
