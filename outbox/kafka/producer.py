"""The producer of the drain: idempotent, gapless, one per process, replaced after any doubt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outbox.kafka.config import client_config

__all__ = [
    "Delivery",
    "KafkaException",
    "OutgoingMessage",
    "PartitionMismatch",
    "discard",
    "send",
    "warm_up",
]

# Kafka looked at the message and said no; sending it again alone will not change that.
_REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
    }
)


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message with its partition chosen."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Delivery:
    """What is known of one batch after the flush; indexes are positions in the batch.

    acknowledged  index -> offset
    refused       index -> why Kafka said no
    unknown       everything else: perhaps written, perhaps not
    """

    size: int
    acknowledged: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    error: str = ""

    @property
    def complete(self) -> bool:
        """Every message is acknowledged."""
        return len(self.acknowledged) == self.size


class PartitionMismatch(RuntimeError):
    """A topic is missing or has another number of partitions than the code says.

    Order per key depends on the number: run `manage.py create_topics`, or drain the outbox and
    the topic before changing it.
    """


_producer: Producer | None = None
_owner = 0


def send(messages: Sequence[OutgoingMessage], *, timeout: float) -> Delivery:
    """Produce a batch and wait at most `timeout` seconds for its acknowledgements.

    Unless the delivery is complete the producer has been purged and closed. What a broker still
    finds in its socket can then only come as a duplicate: sequence numbers let it in as the
    gapless start of this batch or not at all.
    """
    delivery = Delivery(size=len(messages))
    try:
        producer = _current()
        for index, message in enumerate(messages):
            _produce(producer, message, partial(_report, delivery, index))
        producer.flush(timeout)
    except KafkaException as error:
        delivery.error = str(error)
    if not delivery.complete:
        discard()
    return delivery


def warm_up(partitions: dict[str, int], *, timeout: float) -> None:
    """Connect, fetch the idempotence id, and compare the partition counts.

    Raises KafkaException while no broker answers, PartitionMismatch if a count differs.
    """
    topics = _current().list_topics(timeout=timeout).topics
    for name, expected in partitions.items():
        found = len(topics[name].partitions) if name in topics else 0
        if found != expected:
            raise PartitionMismatch(
                f"Topic {name} has {found} partitions, the code says {expected}. "
                + (PartitionMismatch.__doc__ or "")
            )


def discard() -> None:
    """Purge what is queued or in flight and forget the producer; the next send makes another."""
    global _producer
    if _producer is None or _owner != os.getpid():
        _producer = None
        return
    producer, _producer = _producer, None
    producer.purge()
    producer.flush(0.5)
    producer.close()


def _current() -> Producer:
    """This process's producer, made at first use: librdkafka's threads do not survive a fork."""
    global _producer, _owner
    if _producer is None or _owner != os.getpid():
        _producer = Producer(_config())
        _owner = os.getpid()
    return _producer


def _config() -> dict[str, Any]:
    return client_config("drain") | {
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "acks": "all",
        # Far beyond every flush: a message that timed out inside librdkafka would leave a gap
        # that its successors jump over. Here the whole batch is purged instead (see send).
        "message.timeout.ms": 120_000,
        "linger.ms": 2,
        "compression.type": "lz4",
        "batch.size": 1_000_000,
        "message.max.bytes": 2_000_000,
        "queue.buffering.max.messages": 100_000,
    }


def _produce(producer: Producer, message: OutgoingMessage, report: Any) -> None:
    while True:
        try:
            producer.produce(
                message.topic,
                partition=message.partition,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                on_delivery=report,
            )
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.05)


def _report(delivery: Delivery, index: int, error: KafkaError | None, message: Message) -> None:
    if error is None:
        delivery.acknowledged[index] = cast(int, message.offset())
    else:
        delivery.error = error.str()
        if error.code() in _REFUSALS:
            delivery.refused[index] = error.str()
