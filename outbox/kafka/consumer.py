"""The consumer of a bridge: partitions come and go, and always start where the caller says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import structlog
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from django.conf import settings

from outbox.envelope import ReceivedMessage
from outbox.kafka.config import client_config
from outbox.topics import PartitionKey

__all__ = ["MAX_POLL_MS", "TopicConsumer", "received"]

# A member that has not polled for so long counts as stuck.
MAX_POLL_MS = 60_000

# Messages taken before their bytes are counted: each may be as large as its topic lets it be.
_AT_ONCE = 100

log = structlog.get_logger("outbox.kafka")


class TopicConsumer:
    """One member of a consumer group on one topic.

    on_assign(partitions) -> the offset to start each of them at; those without one are held and not
    read until `begin_again`. on_revoke(partitions). on_end(partition, offset): everything below that
    offset was received or is no message (a marker of a transaction, a message that was aborted), and
    nothing follows yet. All run inside `receive`. Nothing is committed but what `mirror` gets, and
    an offset that the log does not have is reported, never silently replaced by another
    (auto.offset.reset=error): then the partition is fetched no more until `begin_again`.
    """

    def __init__(
        self,
        *,
        group: str,
        topic: str,
        on_assign: Callable[[Sequence[PartitionKey]], Mapping[PartitionKey, int]],
        on_revoke: Callable[[Sequence[PartitionKey]], None],
        on_lost_offset: Callable[[PartitionKey, str], None],
        on_end: Callable[[PartitionKey, int], None],
    ) -> None:
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._on_lost_offset = on_lost_offset
        self._on_end = on_end
        self._topic = topic
        self._name = uuid4().hex[:8]
        self._mirrored = 0
        self._consumer = Consumer(_config(group))
        self._consumer.subscribe(
            [topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def receive(self, *, limit: int, limit_bytes: int, timeout: float) -> list[ReceivedMessage]:
        """Wait up to `timeout` seconds for the first message, take what else is there, up to `limit`
        messages; no more once they have `limit_bytes` together."""
        give_up = time.monotonic() + timeout
        first = self._consumer.poll(timeout)
        while first is not None and _is_end(first):  # nothing to wake anybody for
            self._is_message(first)
            first = self._consumer.poll(max(0.0, give_up - time.monotonic()))
        found: list[ReceivedMessage] = []
        size, left = 0, limit - 1
        some = [] if first is None else [first]
        while some:
            taken = [received(message) for message in some if self._is_message(message)]
            found += taken
            size += sum(message.size for message in taken)
            step = min(left, _AT_ONCE)
            some = self._consumer.consume(step, 0) if step and size < limit_bytes else []
            left -= len(some)
        return found

    def pause(self, keys: Iterable[PartitionKey]) -> None:
        """Stop fetching these; the membership in the group stays alive."""
        self._consumer.pause(_partitions(keys))

    def resume(self, keys: Iterable[PartitionKey]) -> None:
        self._consumer.resume(_partitions(keys))

    def seek(self, key: PartitionKey, offset: int) -> None:
        self._consumer.seek(TopicPartition(*key, offset))

    def begin_again(self, key: PartitionKey, offset: int) -> None:
        """The same for a partition that was not read before, or whose offset was lost, which the client
        has stopped and where `seek` is refused; a pause of it ends."""
        partition = TopicPartition(*key, offset)
        self._consumer.incremental_unassign([partition])
        self._consumer.incremental_assign([partition])
        self._consumer.resume([partition])  # the client remembers a pause beyond the assignment

    def mirror(self, positions: Mapping[PartitionKey, int]) -> None:
        """Commit positions to Kafka, for the eyes of its tools: nothing of ours reads them. But each
        time with another mark, by which others see that their partitions are held.

        One that fails is made good by the next.
        """
        self._mirrored += 1
        mark = f"{self._name}-{self._mirrored}"
        offsets = [
            TopicPartition(topic, number, offset, mark)
            for (topic, number), offset in positions.items()
        ]
        with suppress(KafkaException):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def end_offset(self, key: PartitionKey) -> int:
        """The partition's high watermark as last heard from the broker; -1 before that."""
        try:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*key), cached=True)
        except KafkaException:
            return -1
        return int(high)

    def log_end(self, key: PartitionKey, *, timeout: float) -> int:
        """The same as the broker has it now. Raises KafkaException."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*key), timeout=timeout)
        return int(high)

    def marks(self, *, timeout: float) -> dict[PartitionKey, str]:
        """The mark of the last commit to each partition that the topic has, whoever holds it; empty
        before the first, and where there is none (Tansu keeps none, other programs make none).

        A mark that does not change for a second has no owner any more, or one that is stuck. Raises
        KafkaException if Kafka does not answer within `timeout` seconds a question."""
        listed = self._consumer.list_topics(self._topic, timeout=timeout).topics[self._topic]
        asked = [TopicPartition(self._topic, number) for number in listed.partitions]
        marks: dict[PartitionKey, str] = {}
        for found in self._consumer.committed(asked, timeout) if asked else ():
            if found.error is not None:
                raise KafkaException(found.error)
            marks[found.topic, found.partition] = found.metadata or ""
        return marks

    def close(self) -> None:
        self._consumer.close()

    def _is_message(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            topic, partition, _ = _place_of(message)
            self._on_lost_offset((topic, partition), error.str())
        elif _is_end(message):
            topic, partition, offset = _place_of(message)
            self._on_end((topic, partition), offset)
        elif error.fatal():
            raise KafkaException(error)
        else:
            log.warning("consumer_error", error=error.str())
        return False

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [(p.topic, p.partition) for p in partitions]
        offsets = self._on_assign(keys)
        consumer.incremental_assign(
            [TopicPartition(*key, offsets.get(key, OFFSET_END)) for key in keys]
        )
        self.pause(key for key in keys if key not in offsets)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_revoke([(p.topic, p.partition) for p in partitions])
        consumer.incremental_unassign(partitions)


def _place_of(message: Message) -> tuple[str, int, int]:
    return cast(tuple[str, int, int], (message.topic(), message.partition(), message.offset()))


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _config(group: str) -> dict[str, Any]:
    config = client_config(group) | {
        "group.id": group,
        "group.protocol": settings.KAFKA_GROUP_PROTOCOL,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # The only word on how far the client has read where what it read is no message.
        "enable.partition.eof": True,
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        "queued.min.messages": 5000,
        "queued.max.messages.kbytes": 32_768,
        "max.poll.interval.ms": MAX_POLL_MS,
        "topic.metadata.refresh.interval.ms": 30_000,
    }
    if settings.KAFKA_GROUP_PROTOCOL == "classic":
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1500,
        }
    return config


def _partitions(keys: Iterable[PartitionKey]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for topic, partition in keys]


def received(message: Message) -> ReceivedMessage:
    """The client's message as ours; only for messages without an error."""
    topic, partition, offset = _place_of(message)
    key, value = message.key(), message.value()
    headers = cast(Sequence[tuple[str, bytes | None]], message.headers() or ())
    size = len(key or b"") + len(value or b"") + _header_bytes(headers)
    return ReceivedMessage(topic, partition, offset, key, value, headers, size)


def _header_bytes(headers: Sequence[tuple[str, bytes | None]]) -> int:
    size = 0
    for name, value in headers:
        if value:
            size += len(value)
        size += len(name) if name.isascii() else len(name.encode())
    return size
