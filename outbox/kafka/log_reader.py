"""Reading a topic from end to end, outside any consumer group: for audits, the demo, benchmarks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, TopicPartition

from outbox.kafka import admin
from outbox.kafka.config import client_config
from outbox.kafka.consumer import ReceivedMessage, received

__all__ = ["read_topic"]


def read_topic(
    name: str, *, ends: Mapping[int, int] | None = None, timeout: float = 30.0
) -> Iterator[ReceivedMessage]:
    """Every message the topic holds now, each partition in order, the partitions mixed.

    `ends`: partition -> offset to read up to at least, for what a caller knows to be there (Tansu
    0.6 reports the end of its last batch too low). Raises TimeoutError if the log stops answering
    for `timeout` seconds.
    """
    state = admin.topic_states([name])[name]
    missing = {
        partition: max(reported, (ends or {}).get(partition, 0))
        for partition, reported in state.latest.items()
    }
    missing = {p: end for p, end in missing.items() if end > state.earliest[p]}
    config = client_config("log-reader") | {"group.id": f"log-reader-{uuid.uuid4()}"}
    consumer = Consumer(config | {"enable.auto.commit": False, "auto.offset.reset": "error"})
    try:
        consumer.assign([TopicPartition(name, p, state.earliest[p]) for p in missing])
        while missing:
            first = consumer.poll(timeout)
            if first is None:
                raise TimeoutError(f"{name} stopped answering; still to read: {missing}.")
            for message in (first, *consumer.consume(1000, 0)):
                if message.error() is None:
                    found = received(message)
                    if found.offset + 1 >= missing.get(found.partition, 0):
                        missing.pop(found.partition, None)
                    yield found
    finally:
        consumer.close()
