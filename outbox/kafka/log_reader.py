"""Reading a topic from end to end, outside any consumer group: for audits, the demo, benchmarks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from outbox.kafka import admin
from outbox.kafka.config import client_config

__all__ = ["LoggedMessage", "read_topic"]


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """Where a message lies, and whose it is; `event_id` is the text of its ce_id header."""

    partition: int
    offset: int
    event_id: str
    key: bytes
    value: bytes


def read_topic(
    name: str, *, ends: Mapping[int, int] | None = None, timeout: float = 30.0
) -> Iterator[LoggedMessage]:
    """Every message the topic holds now, partition by partition in order.

    `ends`: partition -> offset to read up to at least, for what a caller knows to be there (Tansu
    0.6 reports the end of its last batch too low). Raises TimeoutError if the log stops answering for `timeout` seconds.
    """
    state = admin.topic_states([name])[name]
    config = client_config("log-reader") | {"group.id": f"log-reader-{uuid.uuid4()}"}
    consumer = Consumer(config | {"enable.auto.commit": False, "auto.offset.reset": "error"})
    try:
        for partition, reported in state.latest.items():
            end = max(reported, (ends or {}).get(partition, 0))
            if end > state.earliest[partition]:
                start = TopicPartition(name, partition, state.earliest[partition])
                yield from _read_partition(consumer, start, end, timeout)
    finally:
        consumer.close()


def _read_partition(
    consumer: Consumer, start: TopicPartition, end: int, timeout: float
) -> Iterator[LoggedMessage]:
    consumer.assign([start])
    position = start.offset
    while position < end:
        first = consumer.poll(timeout)
        if first is None:
            raise TimeoutError(f"{start.topic}[{start.partition}] stopped answering at {position}.")
        for message in (first, *consumer.consume(1000, 0)):
            offset = message.offset()
            if message.error() is not None or offset is None:
                continue
            position = offset + 1
            headers = dict(message.headers() or ())
            event_id = headers.get("ce_id") or b""
            yield LoggedMessage(
                partition=start.partition,
                offset=offset,
                event_id=event_id if isinstance(event_id, str) else event_id.decode(),
                key=message.key() or b"",
                value=message.value() or b"",
            )
