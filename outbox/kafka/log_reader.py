"""Reading a topic from end to end, outside any consumer group: for audits, the demo, benchmarks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from outbox.envelope import ReceivedMessage
from outbox.kafka import admin
from outbox.kafka.config import client_config
from outbox.kafka.consumer import received

__all__ = ["read_topic"]


def read_topic(
    name: str, *, ends: Mapping[int, int] | None = None, timeout: float = 30.0
) -> Iterator[ReceivedMessage]:
    """Every message the topic holds now, each partition in order, the partitions mixed.

    `ends`: partition -> offset to read up to at least, for what a caller knows to be there (Tansu
    0.6 reports the end of its last batch too low). Raises TimeoutError if the log stops answering
    for `timeout` seconds, as behind a transaction that stays open.
    """
    state = admin.topic_states([name])[name]
    known = {p: max(reported, (ends or {}).get(p, 0)) for p, reported in state.latest.items()}
    missing = {p: end for p, end in known.items() if end > state.earliest[p]}
    config = client_config("log-reader") | {"group.id": f"log-reader-{uuid.uuid4()}"}
    config |= {"enable.auto.commit": False, "auto.offset.reset": "error"}
    # What lies at the end may be no message: a marker of a transaction, one that was aborted.
    consumer = Consumer(config | {"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(name, p, state.earliest[p]) for p in missing])
        while missing:
            first = consumer.poll(timeout)
            if first is None:
                raise TimeoutError(f"{name} stopped answering; not read yet: {missing}.")
            for message in (first, *consumer.consume(1000, 0)):
                partition, read_to = _read_to(message)
                if read_to >= missing.get(partition, 0):
                    missing.pop(partition, None)
                if message.error() is None:
                    yield received(message)
    finally:
        consumer.close()


def _read_to(message: Message) -> tuple[int, int]:
    """A partition, and the offset up to which this says that it has been read; -1: it says nothing."""
    error, partition, offset = message.error(), message.partition(), message.offset()
    if partition is None or offset is None:
        return -1, -1
    if error is None:
        return partition, offset + 1
    return partition, offset if error.code() == KafkaError._PARTITION_EOF else -1
