"""Producing a batch around messages that Kafka itself refuses (guarantees.md#r5 and #r6).

A refusal ends the producer and fails the whole request, so only a message that is refused alone
is really refused. This process remembers the pauses between its attempts, during which the key is
left out. A refusal without a named reason only pauses the key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from outbox.drain.state import RefusedKeys
from outbox.envelope import event_fields
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery, OutgoingMessage
from outbox.lanes.pending import PendingEvent

__all__ = ["Produced", "produce"]

log = structlog.get_logger("outbox.drain")


@dataclass(slots=True)
class Produced(BatchDelivery):
    """The delivery of a whole batch; `alone` are the indexes refused by themselves."""

    alone: set[int] = field(default_factory=set)

    def add(self, part: Produced, start: int) -> None:
        """Take over what is known of a part, which begins at index `start`."""
        self.acknowledged |= {start + i: offset for i, offset in part.acknowledged.items()}
        self.refused |= {start + i: reason for i, reason in part.refused.items()}
        self.alone |= {start + i for i in part.alone}
        self.error = self.error or part.error


def produce(
    pending: Sequence[PendingEvent], *, deadline: float, refused_before: RefusedKeys
) -> Produced:
    """Send events until `deadline` on the monotonic clock. `error` stays empty if only refusals
    occurred.

    Partitions without a refusal are sent together once more. The rest follows one message at a
    time, with keys that were refused before at the end."""
    messages = [event.message() for event in pending]
    whole = Produced(size=len(messages))
    together = list(range(len(messages)))
    if refused_before:
        together = [i for i in together if pending[i].place not in refused_before]
    for _ in range(2):
        if not together:
            break
        sent = _send(messages, together, whole, deadline)
        if not sent.complete and not sent.refusal:
            whole.error = sent.error
            return whole
        accused = {_place(messages[together[index]]) for index in sent.refused}
        unsent = set(_open(whole)) if accused else set()
        together = [i for i in together if i in unsent and _place(messages[i]) not in accused]
    if not whole.complete:
        _produce_singly(pending, messages, whole, deadline, refused_before)
    return whole


def _produce_singly(
    pending: Sequence[PendingEvent],
    messages: Sequence[OutgoingMessage],
    whole: Produced,
    deadline: float,
    refused_before: RefusedKeys,
) -> None:
    """Add to `whole` what Kafka takes alone. A key stops at its first refusal.

    Each refusal costs a new producer, about half a second, so running out of time after one is
    not Kafka's failure."""
    stopped = set()
    for index in sorted(_open(whole), key=lambda i: pending[i].place in refused_before):
        event = pending[index]
        if event.place in stopped:
            continue
        if time.monotonic() >= deadline:
            return
        alone = _send(messages, [index], whole, deadline)
        if alone.complete:
            continue
        if not alone.refusal:
            whole.error = "" if whole.alone else alone.error
            return
        stopped.add(event.place)
        whole.alone.add(index)
        if alone.refused:
            whole.refused[index] = alone.refused[0]
        log.error(
            "message_refused",
            event_id=event.event_id,
            topic=event.topic,
            key=event.key,
            error=alone.refused.get(0, alone.error),
            **event_fields(event.envelope.trace),
        )
        if event.place in refused_before:
            return  # one of these a batch: the rest of the time belongs to the others


def _send(
    messages: Sequence[OutgoingMessage],
    indexes: Sequence[int],
    whole: BatchDelivery,
    deadline: float,
) -> BatchDelivery:
    """Send some of the messages and add to `whole` what was acknowledged."""
    timeout = max(0.0, deadline - time.monotonic())
    sent = producer.send([messages[index] for index in indexes], timeout=timeout)
    whole.acknowledged |= {indexes[i]: offset for i, offset in sent.acknowledged.items()}
    return sent


def _open(delivery: BatchDelivery) -> list[int]:
    return [index for index in range(delivery.size) if index not in delivery.acknowledged]


def _place(message: OutgoingMessage) -> tuple[str, int]:
    return message.topic, message.partition
