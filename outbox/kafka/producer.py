"""The producer of the drain: idempotent, gapless, one per thread, replaced after any doubt."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outbox.kafka.config import idempotent_config
from outbox.kafka.refusals import NO_ANSWER, REFUSALS

__all__ = [
    "BatchDelivery",
    "KafkaException",
    "OutgoingMessage",
    "PartitionMismatch",
    "discard",
    "send",
    "warm_up",
]

_GRACE_SECONDS = 0.5
_SERVE_EVERY = 100  # messages; asking after each one costs as much as sending it


class OutgoingMessage(NamedTuple):
    """One message with its partition chosen."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes]]


@dataclass(slots=True)
class BatchDelivery:
    """What is known of one batch after the flush; indexes are positions in the batch.

    acknowledged  index -> offset
    refused       index -> why Kafka said no; its neighbours in the request get the same reason
    unknown       everything else: perhaps written, perhaps not
    fatal         the producer died of it; a refusal perhaps, even if `refused` names none
    """

    size: int
    acknowledged: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    fatal: bool = False
    error: str = ""

    @property
    def complete(self) -> bool:
        return len(self.acknowledged) == self.size

    @property
    def refusal(self) -> bool:
        """Something of the batch was refused: sending it again as it is will not help."""
        return bool(self.refused) or self.fatal


class PartitionMismatch(RuntimeError):
    """A topic is missing or has fewer partitions than the code says."""


class _Own(threading.local):
    """This thread's producer, so that what is purged here takes nothing of another claim along, and
    the process that made it: librdkafka's threads do not survive a fork."""

    producer: Producer | None = None
    process = 0


_own = _Own()


def send(messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
    """Produce a batch and wait at most `timeout` seconds for its acknowledgements.

    Unless the delivery is complete the producer has been purged and closed. What a broker still
    finds in its socket can then only come as a duplicate: sequence numbers let it in as the
    gapless start of this batch or not at all.
    """
    delivery = BatchDelivery(size=len(messages))
    deadline = time.monotonic() + timeout
    producer = _current()
    for index, message in enumerate(messages):
        # What follows a failure is not sent: it would overtake. One without a report
        # has ended the producer, which then takes no more.
        if not _produce(producer, message, delivery, index, deadline):
            break
        if index % _SERVE_EVERY == 0 and not _serve(partial(producer.poll, 0), delivery):
            break
    _flush(producer, delivery, deadline)
    if not delivery.complete:
        discard()
        delivery.error = delivery.error or "not acknowledged in time"
    return delivery


def warm_up(partitions: dict[str, int], *, timeout: float) -> None:
    """Connect, fetch the idempotence id, and compare the partition counts: more are none of ours.

    Raises KafkaException while no broker answers, PartitionMismatch if there are fewer.
    """
    topics = _current().list_topics(timeout=timeout).topics
    for name, expected in partitions.items():
        found = len(topics[name].partitions) if name in topics else 0
        if found < expected:
            raise PartitionMismatch(
                f"Topic {name} has {found} partitions, the code expects {expected}, and the order of a key"
                " depends on the number. Run `manage.py create_topics`: it creates the topic or says what"
                " to do."
            )


def discard() -> None:
    """Purge what is queued or in flight and forget the producer; the next send makes another."""
    producer, _own.producer = _own.producer, None
    if producer is None or _own.process != os.getpid():
        return
    for step in (producer.purge, partial(producer.flush, 0.5), producer.close):
        with suppress(KafkaException, SystemError):
            step()


def _current() -> Producer:
    """Made at first use."""
    if _own.producer is None or _own.process != os.getpid():
        _own.producer = Producer(_config())
        _own.process = os.getpid()
    return _own.producer


def _config() -> dict[str, Any]:
    return idempotent_config("drain") | {
        # Far beyond every flush: a message that timed out inside librdkafka would leave a gap
        # that its successors jump over. Here the whole batch is purged instead (see send).
        "message.timeout.ms": 120_000,
        "linger.ms": 2,
        "compression.type": "lz4",
        "batch.size": 1_000_000,
        "message.max.bytes": 2_000_000,
        "queue.buffering.max.messages": 100_000,
    }


def _produce(
    producer: Producer,
    message: OutgoingMessage,
    delivery: BatchDelivery,
    index: int,
    deadline: float,
) -> bool:
    """Queue one message; False if it was not taken."""
    while True:
        try:
            producer.produce(
                message.topic,
                partition=message.partition,
                key=message.key,
                value=message.value,
                headers=cast(Any, message.headers),
                on_delivery=partial(_report, delivery, index),
            )
        except BufferError:
            if not _serve(partial(producer.poll, 0.05), delivery) or time.monotonic() > deadline:
                return False
        except KafkaException as error:
            _note(delivery, index, error.args[0])
            return False
        else:
            return True


def _flush(producer: Producer, delivery: BatchDelivery, deadline: float) -> None:
    """Wait for the reports. A producer that died reports the rest soon, or never."""
    while True:
        if delivery.fatal:
            deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        remaining = deadline - time.monotonic()
        if _serve(partial(producer.flush, max(0.0, remaining)), delivery) or remaining <= 0:
            return


def _serve(step: Callable[[], int], delivery: BatchDelivery) -> bool:
    """Run callbacks; False if the producer died meanwhile.

    confluent_kafka raises a fatal error inside whatever callback comes next, which Python
    reports as a SystemError of that callback; the reports behind it are still to be fetched.
    """
    try:
        step()
    except (KafkaException, SystemError) as error:
        delivery.fatal = True
        delivery.error = str(error.__cause__ or error)
        return False
    return True


def _report(
    delivery: BatchDelivery, index: int, error: KafkaError | None, message: Message
) -> None:
    if error is None:
        delivery.acknowledged[index] = cast(int, message.offset())
    else:
        _note(delivery, index, error)


def _note(delivery: BatchDelivery, index: int, error: KafkaError) -> None:
    if error.code() in REFUSALS:
        delivery.refused[index] = error.str()
    if error.code() not in NO_ANSWER:
        delivery.fatal = True
        delivery.error = error.str()
    delivery.error = delivery.error or error.str()
