"""Producing a batch around messages that Kafka itself refuses (rules R5 and R6).

A refusal ends the producer and takes down the whole request, so only a message refused alone is
really refused. It is tried a few times, with pauses that this process remembers, during which its
key is left out; then the drain makes it a dead letter. A refusal without a name, which is how an
unwell broker may look, only ever pauses its key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

import structlog

from outbox import conf
from outbox.conf import DrainPolicy
from outbox.envelope import EventEnvelope, TraceContext, kafka_headers
from outbox.kafka import producer
from outbox.kafka.producer import Delivery, OutgoingMessage
from outbox.topics import partition_of

__all__ = ["Backoff", "PendingEvent", "Produced", "keys_left_out", "produce", "remember_refused"]

# Long enough that even a hundred refused keys leave most of the time to the others.
_REFUSED_PAUSE_MAX = 60.0

log = structlog.get_logger("outbox.drain")


class PendingEvent(NamedTuple):
    """One claimed row of the outbox, as `claims.pending_events` reads it: a plain tuple, because
    there are tens of thousands a second.

    event_id, time  as the message's headers have them
    headers         what the row adds to them, JSON, or None
    committed       when the row was written, seconds since 1970
    beside_letters  its lane has a message that was refused
    """

    id: int
    lane: int
    event_id: str
    type: str
    topic: str
    key: str
    source: str
    time: str
    payload: str
    traceparent: str
    correlation_id: str
    headers: str | None
    committed: float
    beside_letters: bool

    @property
    def partition(self) -> int:
        """Where it goes."""
        return partition_of(self.lane, conf.partition_counts()[self.topic])

    @property
    def place(self) -> tuple[str, str]:
        """(topic, key)."""
        return self.topic, self.key

    @property
    def envelope(self) -> EventEnvelope:
        """The event by itself, for what is done with the few that are refused."""
        return EventEnvelope(
            event_id=UUID(self.event_id),
            type=self.type,
            topic=self.topic,
            key=self.key,
            source=self.source,
            time=self.time,
            payload=self.payload,
            trace=TraceContext(self.traceparent, self.correlation_id),
            headers=tuple(json.loads(self.headers).items()) if self.headers else (),
        )

    def message(self) -> OutgoingMessage:
        """The message it becomes."""
        headers = kafka_headers(
            event_id=self.event_id,
            type_=self.type,
            source=self.source,
            time=self.time,
            key=self.key,
            traceparent=self.traceparent,
            correlation_id=self.correlation_id,
        )
        if self.headers:
            # As bytes: of a text the client writes what stands before its first NUL.
            headers += [(name, value.encode()) for name, value in json.loads(self.headers).items()]
        key, value = self.key.encode(), self.payload.encode()
        return OutgoingMessage(self.topic, self.partition, key, value, headers)


@dataclass(slots=True)
class Backoff:
    """Running state of one process: how long Kafka, or one key, is left alone after a failure."""

    until: float = 0.0
    delay: float = 0.0
    warm: bool = field(default=False)
    named: int = 0  # refusals of this key's head in a row that Kafka gave a reason for

    def failed(self, policy: DrainPolicy) -> None:
        """Twice as long as the last time."""
        self.delay = min(max(self.delay * 2, policy.backoff_first), policy.backoff_max)
        self.until = time.monotonic() + self.delay
        self.warm = False

    def succeeded(self) -> None:
        """No pause."""
        self.delay = 0.0
        self.until = 0.0


# (topic, key) -> how long a key is left out after Kafka refused its first event.
_refused: dict[tuple[str, str], Backoff] = {}


def keys_left_out() -> list[tuple[str, str]]:
    """Keys whose first event was refused a moment ago."""
    now = time.monotonic()
    # A copy: another thread of the same drain may add to it meanwhile.
    return [key for key, pause in _refused.copy().items() if now < pause.until]


def remember_refused(
    settled: Iterable[PendingEvent],
    refused: Iterable[tuple[PendingEvent, str]],
    policy: DrainPolicy,
) -> list[tuple[PendingEvent, str]]:
    """Leave a refused key out for a while: its rows must not fill the batches of its lane.

    Takes and returns events with the reason, empty if Kafka named none; what is returned was
    refused often enough to be a dead letter, and is forgotten here.
    """
    if _refused:
        for event in settled:
            _refused.pop(event.place, None)
    longer = replace(policy, backoff_max=_REFUSED_PAUSE_MAX)
    for_good = []
    for event, reason in refused:
        pause = _refused.setdefault(event.place, Backoff())
        pause.failed(longer)
        pause.named += bool(reason)
        if pause.named >= policy.refusals:
            del _refused[event.place]
            for_good.append((event, reason))
    return for_good


@dataclass(slots=True)
class Produced(Delivery):
    """The delivery of a whole batch; `alone` are the indexes refused by themselves."""

    alone: set[int] = field(default_factory=set)

    def add(self, part: Produced, start: int) -> None:
        """Take over what is known of a part, which begins at index `start`."""
        self.acknowledged |= {start + i: offset for i, offset in part.acknowledged.items()}
        self.refused |= {start + i: reason for i, reason in part.refused.items()}
        self.alone |= {start + i for i in part.alone}
        self.error = self.error or part.error


def produce(pending: Sequence[PendingEvent], *, deadline: float) -> Produced:
    """Send events, until `deadline` on the monotonic clock. `error` is left empty if refusals are
    all that went wrong.

    The partitions that were not accused go together once more, what is left after that one
    message at a time, keys that were refused before at the very end.
    """
    messages = [event.message() for event in pending]
    whole = Produced(size=len(messages))
    together = list(range(len(messages)))
    if _refused:
        together = [i for i in together if pending[i].place not in _refused]
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
        _produce_singly(pending, messages, whole, deadline)
    return whole


def _produce_singly(
    pending: Sequence[PendingEvent],
    messages: Sequence[OutgoingMessage],
    whole: Produced,
    deadline: float,
) -> None:
    """Add to `whole` what Kafka takes alone. A key stops at its first refusal.

    Each refusal costs a new producer, about half a second; time that runs out after one says
    nothing of Kafka.
    """
    stopped = set()
    for index in sorted(_open(whole), key=lambda i: pending[i].place in _refused):
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
        )
        if event.place in _refused:
            return  # one of these a batch: the rest of the time belongs to the others


def _send(
    messages: Sequence[OutgoingMessage], indexes: Sequence[int], whole: Delivery, deadline: float
) -> Delivery:
    """Send some of the messages and add to `whole` what was acknowledged."""
    timeout = max(0.0, deadline - time.monotonic())
    if len(indexes) == len(messages):
        sent = producer.send(messages, timeout=timeout)
        whole.acknowledged = sent.acknowledged
        return sent
    sent = producer.send([messages[index] for index in indexes], timeout=timeout)
    whole.acknowledged |= {indexes[i]: offset for i, offset in sent.acknowledged.items()}
    return sent


def _open(delivery: Delivery) -> list[int]:
    return [index for index in range(delivery.size) if index not in delivery.acknowledged]


def _place(message: OutgoingMessage) -> tuple[str, int]:
    return message.topic, message.partition
