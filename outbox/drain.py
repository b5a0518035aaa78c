"""The drain: claim lanes, produce their pending events, settle what Kafka acknowledged.

One short transaction a batch (rule R3). The lane lock is what keeps the order of a key: two
drains never hold rows of the same lane, and inside a lane rows go out by id. A drain that dies
or hangs loses its lanes when PostgreSQL ends its session; what it had sent goes out again and
the inbox drops it.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Subquery

from outbox import drain_letters, metrics, queries
from outbox.conf import DRAIN, DrainPolicy
from outbox.conf import all_topics as topics
from outbox.envelope import EventEnvelope, TraceContext, rfc3339
from outbox.kafka import producer
from outbox.kafka.producer import Delivery
from outbox.models import OutboxEvent, OutboxLane
from outbox.refusals import (
    Backoff,
    PendingEvent,
    Produced,
    keys_left_out,
    produce,
    remember_refused,
)
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


@dataclass(slots=True)
class DrainReport:
    """What one run did: batches, events settled, and why it stopped early, if it did."""

    batches: int = 0
    settled: int = 0
    stopped: str = ""


class LaneMismatch(RuntimeError):
    """The table outbox_lane and LANES in the code differ, and order per key depends on the number.

    Go back to the number of the table; or drain the outbox, stop every writer and drain, change
    LANES, empty the table and run `manage.py migrate`, which fills it.
    """


_backoff = Backoff()
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
        if not batch.settled and not batch.refused and not batch.held:
            report.stopped = report.stopped or "nothing settled"
        if not report.stopped and not queries.has_pending():
            return report
    report.stopped = report.stopped or "time is up"
    return report


@dataclass(frozen=True, slots=True)
class _Batch:
    settled: Sequence[PendingEvent]
    refused: int
    held: int
    error: str


def drain_batch(policy: DrainPolicy = DRAIN) -> _Batch | None:
    """Claim, produce and settle one batch; None when no lane has anything to send."""
    with transaction.atomic():
        lanes = claim_lanes(policy.lanes_per_claim)
        if not lanes:
            return None
        pending = pending_events(lanes, limit=policy.batch_events)
        held = 0
        if any(event.beside_letters for event in pending):
            held = drain_letters.hold_followers({e.lane for e in pending if e.beside_letters})
            pending = pending_events(lanes, limit=policy.batch_events)
        delivery = produce(pending, policy)
        settled = acknowledged_prefix(pending, delivery)
        settle_batch(
            [(pending[i].id, pending[i].partition, delivery.acknowledged[i]) for i in settled]
        )
        events = [pending[i] for i in settled]
        beside = [event for event in events if event.beside_letters]
        if beside:
            drain_letters.settled(beside)
        refused = [(pending[i], delivery.refused.get(i, "")) for i in delivery.alone]
        for_good = remember_refused(events, refused, policy)
        if for_good:
            drain_letters.give_up(for_good, attempts=policy.refusals)
    _record(events, pending, delivery, policy)
    return _Batch(settled=events, refused=len(refused), held=held, error=delivery.error)


def claim_lanes(limit: int) -> list[int]:
    """Lock up to `limit` lanes that have pending events, the longest waiting first.

    Lanes that another drain holds are skipped. The lock lasts until the transaction ends. A lane
    with nothing but refused keys or unknown topics is not claimed: it would take another's place.
    """
    pending = OutboxEvent.objects.filter(
        lane=OuterRef("lane"),
        status=OutboxEvent.Status.NEW,
        topic__in=[topic.name for topic in topics()],
    )
    for topic, key in keys_left_out():
        pending = pending.exclude(topic=topic, key=key)
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
    Left out: keys that Kafka has just refused, and topics of no route.
    """
    left_out = keys_left_out()
    counts = {topic.name: topic.partitions for topic in topics()}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT event.id, event.lane, event.created_at, event.event_id, event.type, event.topic,
                   event.key, event.source, event.payload, event.traceparent,
                   event.correlation_id, event.headers, claimed.letters_open
            FROM (SELECT lane, letters_open FROM outbox_lane WHERE lane = ANY(%s)) AS claimed
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


def _pending(row: tuple[Any, ...], counts: dict[str, int]) -> PendingEvent:
    row_id, lane, created_at, event_id, type_, topic, key, source, payload, *rest = row
    traceparent, correlation_id, headers, beside_letters = rest
    return PendingEvent(
        id=row_id,
        lane=lane,
        partition=partition_of(lane, counts[topic]),
        created_at=created_at,
        beside_letters=beside_letters,
        envelope=EventEnvelope(
            event_id=event_id,
            type=type_,
            topic=topic,
            key=key,
            source=source,
            time=rfc3339(created_at),
            payload=payload,
            trace=TraceContext(traceparent, correlation_id),
            headers=tuple(json.loads(headers).items()) if headers else (),
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
    delivery: Produced,
    policy: DrainPolicy,
) -> None:
    now = time.time()
    metrics.DRAIN_BATCH.observe(len(pending))
    for topic, count in Counter(event.envelope.topic for event in settled).items():
        metrics.DRAINED.labels(topic).inc(count)
    for event in settled:
        metrics.COMMIT_TO_KAFKA.observe(max(0.0, now - event.created_at.timestamp()))
    if delivery.alone:
        metrics.DRAIN_FAILED.labels("refused").inc()
    if not delivery.error:
        _backoff.succeeded()
        log.info(
            "drained",
            events=len(settled),
            refused=len(delivery.alone),
            correlation_ids=_correlation_ids(settled),
        )
    else:
        _backoff.failed(policy)
        metrics.DRAIN_FAILED.labels("transport").inc()
        log.warning(
            "drain_incomplete",
            events=len(pending),
            settled=len(settled),
            refused=len(delivery.alone),
            error=delivery.error,
            backoff_seconds=_backoff.delay,
        )


def _correlation_ids(events: Sequence[PendingEvent]) -> list[str]:
    return sorted({event.envelope.trace.correlation_id for event in events} - {""})
