"""The drain: claim lanes, produce their pending events, settle what Kafka acknowledged.

One short transaction a batch (rule R3). The lane lock is what keeps the order of a key: two
drains never hold rows of the same lane, and inside a lane rows go out by id. A drain that dies
or hangs loses its lanes when PostgreSQL ends its session; what it had sent goes out again and
the inbox drops it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Subquery

from outbox import metrics, queries
from outbox.conf import DRAIN, DrainPolicy, topics
from outbox.envelope import EventEnvelope, TraceContext, kafka_headers, rfc3339
from outbox.kafka import producer
from outbox.kafka.producer import Delivery, OutgoingMessage
from outbox.models import OutboxEvent, OutboxLane
from outbox.topics import LANES, partition_of

__all__ = [
    "DrainReport",
    "LaneMismatch",
    "PendingEvent",
    "claim_lanes",
    "drain",
    "drain_batch",
    "settle_batch",
]

log = structlog.get_logger("outbox.drain")


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """One claimed row of the outbox."""

    id: int
    lane: int
    partition: int
    created_at: datetime
    envelope: EventEnvelope


@dataclass(slots=True)
class DrainReport:
    """What one run did: batches, events settled, and why it stopped early, if it did."""

    batches: int = 0
    settled: int = 0
    stopped: str = ""


@dataclass(slots=True)
class _Backoff:
    """Running state of one process: how long Kafka is left alone after a failure."""

    until: float = 0.0
    delay: float = 0.0
    warm: bool = field(default=False)

    def failed(self, policy: DrainPolicy) -> None:
        self.delay = min(max(self.delay * 2, policy.backoff_first), policy.backoff_max)
        self.until = time.monotonic() + self.delay
        self.warm = False

    def succeeded(self) -> None:
        self.delay = 0.0
        self.until = 0.0


class LaneMismatch(RuntimeError):
    """The table outbox_lane and LANES in the code differ, and order per key depends on the number.

    Go back to the number of the table; or drain the outbox, stop every writer and drain, change
    LANES, empty the table and run `manage.py migrate`, which fills it.
    """


_backoff = _Backoff()
# (topic, key) -> how long a key is left out after Kafka refused its first event.
_refused: dict[tuple[str, str], _Backoff] = {}
# Long enough that even a hundred refused keys leave most of the time to the others.
_REFUSED_PAUSE_MAX = 60.0
_UNKNOWN_TOPICS_LOOKED_AT = 2000


def drain(policy: DrainPolicy = DRAIN) -> DrainReport:
    """Drain until nothing is pending, Kafka fails, or `run_seconds` are over.

    Connects before it claims, so that no lane is held while Kafka is away. A batch that settles
    nothing ends the run, unless its refusals have just made room for other keys.
    """
    report = DrainReport(stopped=_not_ready(policy))
    deadline = time.monotonic() + policy.run_seconds
    while not report.stopped and time.monotonic() < deadline:
        batch = drain_batch(policy)
        if batch is None:
            _tell_unknown_topics()
            return report
        report.batches += 1
        report.settled += len(batch.settled)
        report.stopped = batch.error
        if not batch.settled and not batch.refused:
            report.stopped = report.stopped or "nothing settled"
        if not report.stopped and not queries.has_pending():
            return report
    report.stopped = report.stopped or "time is up"
    return report


@dataclass(frozen=True, slots=True)
class _Batch:
    settled: Sequence[PendingEvent]
    refused: int
    error: str


def drain_batch(policy: DrainPolicy = DRAIN) -> _Batch | None:
    """Claim, produce and settle one batch; None when no lane has anything to send."""
    with transaction.atomic():
        lanes = claim_lanes(policy.lanes_per_claim)
        if not lanes:
            return None
        pending = pending_events(lanes, limit=policy.batch_events)
        delivery = _produce(pending, policy)
        settled = acknowledged_prefix(pending, delivery)
        settle_batch(
            [(pending[i].id, pending[i].partition, delivery.acknowledged[i]) for i in settled]
        )
    events = [pending[i] for i in settled]
    _record(events, pending, delivery, policy)
    return _Batch(settled=events, refused=len(delivery.refused), error=delivery.error)


def claim_lanes(limit: int) -> list[int]:
    """Lock up to `limit` lanes that have pending events, the longest waiting first.

    Lanes that another drain holds are skipped. The lock lasts until the transaction ends. A lane
    with nothing but refused keys or unknown topics is not claimed: it would take another's place.
    Nor is a paused one; PostgreSQL asks again once it has the lock.
    """
    pending = OutboxEvent.objects.filter(
        lane=OuterRef("lane"),
        status=OutboxEvent.Status.NEW,
        topic__in=[topic.name for topic in topics()],
    )
    for topic, key in _keys_left_out():
        pending = pending.exclude(topic=topic, key=key)
    lanes = (
        OutboxLane.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(Exists(pending), paused=False)
        .order_by(Subquery(pending.order_by("id").values("id")[:1]))
    )
    return list(lanes.values_list("lane", flat=True)[:limit])


def pending_events(lanes: Sequence[int], *, limit: int) -> list[PendingEvent]:
    """The next events of the claimed lanes in order of id, at most about `limit`.

    A statement of its own, after the lock: its snapshot sees everything that the lane's previous
    holder committed. Read by status, never by "id greater than": ids are drawn before commit.
    Left out: keys that Kafka has just refused, and topics of no route.
    """
    left_out = _keys_left_out()
    counts = {topic.name: topic.partitions for topic in topics()}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT event.id, event.lane, event.created_at, event.event_id, event.type, event.topic,
                   event.key, event.source, event.payload, event.traceparent, event.correlation_id
            FROM unnest(%s::smallint[]) AS claimed (lane)
            CROSS JOIN LATERAL (
                SELECT * FROM event_outbox
                WHERE event_outbox.lane = claimed.lane AND status = 0 AND topic = ANY(%s)
                  AND (topic, key) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))
                ORDER BY id LIMIT %s
            ) AS event
            ORDER BY event.id
            """,
            (
                list(lanes),
                list(counts),
                [topic for topic, _ in left_out],
                [key for _, key in left_out],
                limit // len(lanes) + 1,
            ),
        )
        return [_pending(row, counts) for row in cursor.fetchall()]


def _pending(
    row: tuple[int, int, datetime, UUID, str, str, str, str, str, str, str], counts: dict[str, int]
) -> PendingEvent:
    (
        row_id,
        lane,
        created_at,
        event_id,
        type_,
        topic,
        key,
        source,
        payload,
        traceparent,
        correlation,
    ) = row
    return PendingEvent(
        id=row_id,
        lane=lane,
        partition=partition_of(lane, counts[topic]),
        created_at=created_at,
        envelope=EventEnvelope(
            event_id=event_id,
            type=type_,
            topic=topic,
            key=key,
            source=source,
            time=rfc3339(created_at),
            payload=payload,
            trace=TraceContext(traceparent, correlation),
        ),
    )


def _not_ready(policy: DrainPolicy) -> str:
    """Why Kafka cannot be used now, or an empty string."""
    if time.monotonic() < _backoff.until:
        return "backing off"
    if _backoff.warm:
        return ""
    try:
        _compare_lanes()
        producer.warm_up({t.name: t.partitions for t in topics()}, timeout=policy.connect_timeout)
    except (LaneMismatch, producer.PartitionMismatch) as error:
        level, reason, stopped = logging.ERROR, "mismatch", str(error)
    except producer.KafkaException as error:
        level, reason, stopped = logging.WARNING, "connect", str(error)
    else:
        _backoff.warm = True
        return ""
    producer.discard()
    _backoff.failed(policy)
    metrics.DRAIN_FAILED.labels(reason).inc()
    log.log(level, "drain_not_ready", error=stopped, backoff_seconds=_backoff.delay)
    return stopped


def _compare_lanes() -> None:
    """Raises LaneMismatch. Read at each connect: rows of a lane that is missing would wait for ever."""
    found = set(OutboxLane.objects.values_list("lane", flat=True))
    if found != set(range(LANES)):
        raise LaneMismatch(
            f"outbox_lane holds {len(found)} lanes, the code says {LANES}. "
            + (LaneMismatch.__doc__ or "")
        )


def _keys_left_out() -> list[tuple[str, str]]:
    now = time.monotonic()
    return [key for key, pause in _refused.items() if now < pause.until]


def _tell_unknown_topics() -> None:
    """Say aloud what waits for a route; looks at a bounded number of pending rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT topic, count(*), min(id)
            FROM (SELECT topic, id FROM event_outbox WHERE status = 0 ORDER BY lane, id LIMIT %s) p
            WHERE topic <> ALL(%s) GROUP BY topic
            """,
            (_UNKNOWN_TOPICS_LOOKED_AT, [topic.name for topic in topics()]),
        )
        for topic, events, first_id in cursor.fetchall():
            metrics.DRAIN_FAILED.labels("unknown_topic").inc()
            log.error("topic_without_route", topic=topic, events=events, first_id=first_id)


def _produce(pending: Sequence[PendingEvent], policy: DrainPolicy) -> Delivery:
    """Send the batch. `error` is left empty if refusals are all that went wrong.

    A refusal ends the producer and takes down the whole request, so only a message refused alone
    is really refused (rule R5). The partitions that were not accused go together once more, what
    is left after that one message at a time, keys that were refused before at the very end.
    """
    deadline = time.monotonic() + policy.flush_timeout
    messages = [_message(event) for event in pending]
    whole = Delivery(size=len(messages))
    together = [i for i in _open(whole) if not _refused_before(pending[i])]
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
    _produce_singly(pending, messages, whole, deadline)
    return whole


def _produce_singly(
    pending: Sequence[PendingEvent],
    messages: Sequence[OutgoingMessage],
    whole: Delivery,
    deadline: float,
) -> None:
    """Add to `whole` what Kafka takes alone. A key stops at its first refusal.

    Each refusal costs a new producer, about half a second; time that runs out after one says
    nothing of Kafka.
    """
    stopped = set()
    for index in sorted(_open(whole), key=lambda i: _refused_before(pending[i])):
        key = (messages[index].topic, messages[index].key)
        if key in stopped:
            continue
        if time.monotonic() >= deadline:
            return
        alone = _send(messages, [index], whole, deadline)
        if alone.complete:
            continue
        if not alone.refusal:
            whole.error = "" if whole.refused else alone.error
            return
        stopped.add(key)
        whole.refused[index] = alone.refused.get(0, alone.error)
        event = pending[index].envelope
        log.error(
            "message_refused",
            event_id=str(event.event_id),
            topic=event.topic,
            key=event.key,
            error=whole.refused[index],
        )
        if _refused_before(pending[index]):
            return  # one of these a batch: the rest of the time belongs to the others


def _send(
    messages: Sequence[OutgoingMessage], indexes: Sequence[int], whole: Delivery, deadline: float
) -> Delivery:
    """Send some of the messages and add to `whole` what was acknowledged."""
    timeout = max(0.0, deadline - time.monotonic())
    sent = producer.send([messages[index] for index in indexes], timeout=timeout)
    whole.acknowledged |= {indexes[i]: offset for i, offset in sent.acknowledged.items()}
    return sent


def _refused_before(event: PendingEvent) -> bool:
    return (event.envelope.topic, event.envelope.key) in _refused


def _open(delivery: Delivery) -> list[int]:
    return [index for index in range(delivery.size) if index not in delivery.acknowledged]


def _place(message: OutgoingMessage) -> tuple[str, int]:
    return message.topic, message.partition


def _message(event: PendingEvent) -> OutgoingMessage:
    envelope = event.envelope
    return OutgoingMessage(
        topic=envelope.topic,
        partition=event.partition,
        key=envelope.key.encode(),
        value=envelope.payload.encode(),
        headers=kafka_headers(envelope),
    )


def acknowledged_prefix(pending: Sequence[PendingEvent], delivery: Delivery) -> list[int]:
    """Indexes to settle: of each (topic, key) what was acknowledged before the first that was not."""
    if delivery.complete:
        return list(range(len(pending)))
    open_keys: set[tuple[str, str]] = set()
    settled = []
    for index, event in enumerate(pending):
        key = (event.envelope.topic, event.envelope.key)
        if index not in delivery.acknowledged:
            open_keys.add(key)
        elif key not in open_keys:
            settled.append(index)
    return settled


def settle_batch(settled: Sequence[tuple[int, int, int]]) -> None:
    """Mark (id, partition, offset) as published, one statement for all."""
    if not settled:
        return
    ids, partitions, offsets = zip(*settled, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE event_outbox
            SET status = 1, published_at = clock_timestamp(),
                "partition" = sent."partition", "offset" = sent."offset"
            FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[]) AS sent (id, "partition", "offset")
            WHERE event_outbox.id = sent.id
            """,
            (list(ids), list(partitions), list(offsets)),
        )


def _record(
    settled: Sequence[PendingEvent],
    pending: Sequence[PendingEvent],
    delivery: Delivery,
    policy: DrainPolicy,
) -> None:
    now = time.time()
    metrics.DRAIN_BATCH.observe(len(pending))
    for topic, count in Counter(event.envelope.topic for event in settled).items():
        metrics.DRAINED.labels(topic).inc(count)
    for event in settled:
        metrics.COMMIT_TO_KAFKA.observe(max(0.0, now - event.created_at.timestamp()))
    _remember_refused(settled, [pending[index] for index in delivery.refused], policy)
    if delivery.refused:
        metrics.DRAIN_FAILED.labels("refused").inc()
    if not delivery.error:
        _backoff.succeeded()
        log.info(
            "drained",
            events=len(settled),
            refused=len(delivery.refused),
            correlation_ids=_correlation_ids(settled),
        )
    else:
        _backoff.failed(policy)
        metrics.DRAIN_FAILED.labels("transport").inc()
        log.warning(
            "drain_incomplete",
            events=len(pending),
            settled=len(settled),
            refused=len(delivery.refused),
            error=delivery.error,
            backoff_seconds=_backoff.delay,
        )


def _remember_refused(
    settled: Sequence[PendingEvent], refused: Sequence[PendingEvent], policy: DrainPolicy
) -> None:
    """Leave a refused key out for a while: its rows must not fill the batches of its lane."""
    if _refused:
        for event in settled:
            _refused.pop((event.envelope.topic, event.envelope.key), None)
    longer = replace(policy, backoff_max=_REFUSED_PAUSE_MAX)
    for event in refused:
        key = (event.envelope.topic, event.envelope.key)
        _refused.setdefault(key, _Backoff()).failed(longer)


def _correlation_ids(events: Sequence[PendingEvent]) -> list[str]:
    return sorted({event.envelope.trace.correlation_id for event in events} - {""})
