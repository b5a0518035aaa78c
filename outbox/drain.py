"""The drain: claim lanes, produce their pending events, settle what Kafka acknowledged.

One short transaction a batch (rule R3). The lane lock is what keeps the order of a key: two
drains never hold rows of the same lane, and inside a lane rows go out by id. A drain that dies
or hangs loses its lanes when PostgreSQL ends its session; what it had sent goes out again and
the inbox drops it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from outbox.topics import partition_of

__all__ = ["DrainReport", "PendingEvent", "claim_lanes", "drain", "drain_batch", "settle_batch"]

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


_backoff = _Backoff()


def drain(policy: DrainPolicy = DRAIN) -> DrainReport:
    """Drain until nothing is pending, Kafka fails, or `run_seconds` are over.

    Connects before it claims, so that no lane is held while Kafka is away.
    """
    report = DrainReport(stopped=_not_ready(policy))
    deadline = time.monotonic() + policy.run_seconds
    while not report.stopped and time.monotonic() < deadline:
        batch = drain_batch(policy)
        if batch is None:
            return report
        report.batches += 1
        report.settled += len(batch.settled)
        report.stopped = batch.error
        if not report.stopped and not queries.has_pending():
            return report
    report.stopped = report.stopped or "time is up"
    return report


@dataclass(frozen=True, slots=True)
class _Batch:
    settled: Sequence[PendingEvent]
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
    return _Batch(settled=events, error=delivery.error)


def claim_lanes(limit: int) -> list[int]:
    """Lock up to `limit` lanes that have pending events, the longest waiting first.

    Lanes that another drain holds are skipped. The lock lasts until the transaction ends.
    """
    pending = OutboxEvent.objects.filter(lane=OuterRef("lane"), status=OutboxEvent.Status.NEW)
    lanes = (
        OutboxLane.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(Exists(pending))
        .order_by(Subquery(pending.order_by("id").values("id")[:1]))
    )
    return list(lanes.values_list("lane", flat=True)[:limit])


def pending_events(lanes: Sequence[int], *, limit: int) -> list[PendingEvent]:
    """The next events of the claimed lanes in order of id, at most about `limit`.

    A statement of its own, after the lock: its snapshot sees everything that the lane's previous
    holder committed. Read by status, never by "id greater than": ids are drawn before commit.
    """
    counts = {topic.name: topic.partitions for topic in topics()}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT event.id, event.lane, event.created_at, event.event_id, event.type, event.topic,
                   event.key, event.source, event.payload, event.traceparent, event.correlation_id
            FROM unnest(%s::smallint[]) AS claimed (lane)
            CROSS JOIN LATERAL (
                SELECT * FROM event_outbox
                WHERE event_outbox.lane = claimed.lane AND status = 0
                ORDER BY id LIMIT %s
            ) AS event
            ORDER BY event.id
            """,
            (list(lanes), limit // len(lanes) + 1),
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
        producer.warm_up({t.name: t.partitions for t in topics()}, timeout=policy.connect_timeout)
    except (producer.KafkaException, producer.PartitionMismatch) as error:
        producer.discard()
        _backoff.failed(policy)
        metrics.DRAIN_FAILED.labels("connect").inc()
        log.warning("kafka_not_ready", error=str(error), backoff_seconds=_backoff.delay)
        return str(error)
    _backoff.warm = True
    return ""


def _produce(pending: Sequence[PendingEvent], policy: DrainPolicy) -> Delivery:
    """Send the batch; if Kafka refused any of it, send what is left one message at a time.

    An idempotent batch that holds one refused message takes its innocent neighbours down with
    it, so only a message refused alone is really refused (rule R5).
    """
    started = time.monotonic()
    messages = [_message(event) for event in pending]
    delivery = producer.send(messages, timeout=policy.flush_timeout)
    if delivery.refused:
        _produce_singly(pending, messages, delivery, deadline=started + policy.flush_timeout)
    return delivery


def _produce_singly(
    pending: Sequence[PendingEvent],
    messages: Sequence[OutgoingMessage],
    delivery: Delivery,
    *,
    deadline: float,
) -> None:
    """Add to `delivery` what Kafka takes alone. A key stops at its first refusal."""
    delivery.refused.clear()
    stopped = set()
    for index, message in enumerate(messages):
        key = (message.topic, message.key)
        remaining = deadline - time.monotonic()
        if index in delivery.acknowledged or key in stopped or remaining <= 0:
            continue
        alone = producer.send([message], timeout=remaining)
        if alone.complete:
            delivery.acknowledged[index] = alone.acknowledged[0]
            continue
        stopped.add(key)
        if not alone.refused:
            delivery.error = alone.error
            return
        delivery.refused[index] = alone.refused[0]
        log.error(
            "message_refused", event_id=str(pending[index].envelope.event_id), error=alone.error
        )


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
    if delivery.complete:
        _backoff.succeeded()
        log.info("drained", events=len(settled), correlation_ids=_correlation_ids(settled))
    else:
        _backoff.failed(policy)
        metrics.DRAIN_FAILED.labels("refused" if delivery.refused else "transport").inc()
        log.warning(
            "drain_incomplete",
            events=len(pending),
            settled=len(settled),
            refused=len(delivery.refused),
            error=delivery.error,
            backoff_seconds=_backoff.delay,
        )


def _correlation_ids(events: Sequence[PendingEvent]) -> list[str]:
    return sorted({event.envelope.trace.correlation_id for event in events} - {""})
