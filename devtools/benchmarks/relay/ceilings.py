"""What each part of the relay does alone, on the same servers in the same run; messages a second."""

from __future__ import annotations

import time
from typing import Any

import pika
import redis
from confluent_kafka import Producer

from devtools.relay import broker
from devtools.relay.messages import Message

__all__ = ["claim_rate", "consume_rate", "produce_rate"]

PREFETCH, ACKS, CLAIMS = 500, 100, 200


def consume_rate(url: str, queue: str, messages: int) -> float:
    """pika's SelectConnection takes so many and acknowledges by the hundred."""
    began = [0.0]
    seen = [0]

    def on_message(channel: Any, method: Any, _: Any, __: bytes) -> None:
        began[0] = began[0] or time.perf_counter()
        seen[0] += 1
        if seen[0] % ACKS == 0 or seen[0] == messages:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if seen[0] == messages:
            connection.close()

    def on_channel(channel: Any) -> None:
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(queue, on_message)

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
        on_close_callback=lambda closed, _: closed.ioloop.stop(),
    )
    connection.ioloop.start()
    seconds = time.perf_counter() - began[0]
    assert not broker.depth(url, queue)
    return messages / seconds


def produce_rate(servers: str, topic: str, messages: list[Message]) -> float:
    """An idempotent producer with acks=all, to its last report."""
    producer = Producer(
        {"bootstrap.servers": servers, "enable.idempotence": True, "acks": "all", "linger.ms": 2}
    )
    producer.list_topics(topic, timeout=10)
    begin = time.perf_counter()
    for message in messages:
        while True:
            try:
                producer.produce(topic, message.payload, message.event_id)
            except BufferError:
                producer.poll(0.05)
            else:
                break
        producer.poll(0)
    producer.flush(60)
    return len(messages) / (time.perf_counter() - begin)


def claim_rate(url: str, events: int = 20_000) -> float:
    """The relay's own script, one key each, two hundred at a time."""
    from outbox.rabbitmq.claims import EventClaims  # noqa: PLC0415  (needs Django's settings)

    with redis.Redis.from_url(url) as server:
        claims = EventClaims(server, "ceiling", ttl=60, pause=1)
        begin = time.perf_counter()
        for start in range(0, events, CLAIMS):
            batch = [(f"ceiling-{number}", "0" * 32) for number in range(start, start + CLAIMS)]
            assert claims.claim(batch) is not None
        return events / (time.perf_counter() - begin)
