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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models.expressions import RawSQL

from outbox import conf, drain_letters, floors, metrics, tracing
from outbox.conf import DRAIN, DrainPolicy
from outbox.envelope import correlation_fields, rfc3339_of
from outbox.kafka import producer
from outbox.models import OutboxLane
from outbox.planner import plan_without
from outbox.refusals import (
    Backoff,
    PendingEvent,
    Produced,
    keys_left_out,
    remember_refused,
)
from outbox.settling import send_and_settle
from outbox.topics import LANES
from outbox.tracing import Step

__all__ = [
    "DrainReport",
    "LaneMismatch",
    "PendingEvent",
    "claim_lanes",
    "drain",
    "drain_batch",
]

log = structlog.get_logger("outbox.drain")


@dataclass(slots=True)
class DrainReport:
    """What one run did: events settled, and why it stopped early, if it did.

    `exhausted`: its last claim found nothing that may be sent.
    """

    settled: int = 0
    stopped: str = ""
    exhausted: bool = False


class LaneMismatch(RuntimeError):
    """The table outbox_lane and LANES in the code differ, and order per key depends on the number.

    Go back to the number of the table; or drain the outbox, stop every writer and drain, change
    LANES, empty the table and run `manage.py migrate`, which fills it.
    """


_backoff = Backoff()
_floors = floors.Floors()
_UNKNOWN_LOOKED_AT = 32  # pending rows of each lane


def drain(policy: DrainPolicy = DRAIN) -> DrainReport:
    """Drain until nothing is pending, Kafka fails, or `run_seconds` are over.

    Connects before it claims, so that no lane is held while Kafka is away. A batch that settles
    nothing ends the run, unless its refusals have just made room for other keys. Behind a large
    batch a second thread claims beside this one, as another drain would: while one has PostgreSQL
    at work the other uses the processor.
    """
    report = DrainReport(stopped=_not_ready(policy))
    if report.stopped:
        return report
    run = _Run(policy, time.monotonic() + policy.run_seconds)
    second: Future[DrainReport] | None = None
    with ThreadPoolExecutor(1, "drain") as beside:
        for batch in run.batches(report):
            if second is None and batch.much_more and run.goes_on:
                second = beside.submit(copy_context().run, _drain_beside, run)
        while second and wait([second], timeout=policy.floor_interval).not_done:
            _floors.refresh(policy)
    if second:
        report.settled += second.result().settled
        report.stopped = report.stopped or second.result().stopped
    if report.exhausted:
        _tell_unknown_topics()
    return report


def _drain_beside(run: _Run) -> DrainReport:
    """What a second thread does. It has a connection and a producer of its own, only for as long as
    there is much to do, and reads the floors that the first one raises."""
    report = DrainReport()
    try:
        producer.warm_up(conf.partition_counts(), timeout=run.policy.connect_timeout)
        for _ in run.batches(report, raise_floors=False):
            pass
    except _FAILURES as error:
        metrics.DRAIN_FAILED.labels("connect").inc()
        log.warning("drain_beside_failed", error=str(error))
        _backoff.warm = False  # the next run looks for itself before it claims
    finally:
        producer.discard()
        connection.close()
    return report


_FAILURES = (
    *(producer.KafkaException, producer.PartitionMismatch),
    *(OperationalError, InterfaceError, InternalError),
)


@dataclass(slots=True)
class _Run:
    """What the threads of one run share: if Kafka fails for one of them, both end."""

    policy: DrainPolicy
    deadline: float
    failed: bool = False

    @property
    def goes_on(self) -> bool:
        return not self.failed and time.monotonic() < self.deadline

    def batches(self, report: DrainReport, *, raise_floors: bool = True) -> Iterator[_Batch]:
        """One batch after the other, each told in the report, until there is a reason to stop."""
        while not report.stopped:
            if not self.goes_on:
                report.stopped = "the other claim failed" if self.failed else "time is up"
                return
            batch = drain_batch(self.policy, raise_floors=raise_floors)
            if batch is None:
                report.exhausted = True
                return
            report.settled += len(batch.settled)
            report.stopped = batch.error
            self.failed = self.failed or bool(batch.error)
            if not batch.settled and not batch.refused and not batch.held:
                report.stopped = report.stopped or "nothing settled"
            yield batch
            if batch.last:
                return


@dataclass(frozen=True, slots=True)
class _Batch:
    settled: Sequence[PendingEvent]
    refused: int
    held: int
    error: str
    last: bool  # nothing else could be claimed; who commits later asks again
    much_more: bool


def drain_batch(policy: DrainPolicy = DRAIN, *, raise_floors: bool = True) -> _Batch | None:
    """Claim, produce and settle one batch; None when no lane has anything to send.

    `raise_floors`: one thread of a process does so, on the connection that it keeps.
    """
    if raise_floors:
        _floors.refresh(policy)
    with tracing.step("drain", tracing.PRODUCER) as step:
        batch = _drain_batch(policy, step)
        if batch is None:
            step.forget()
        return batch


def _drain_batch(policy: DrainPolicy, step: Step) -> _Batch | None:
    with transaction.atomic():
        _plan_by_index()
        lanes = claim_lanes(policy.lanes_per_claim)
        if not lanes:
            return None
        pending = pending_events(lanes, limit=policy.batch_events)
        held = 0
        if any(event.beside_letters for event in pending):
            held, heads = drain_letters.hold_followers(lanes)
            read = pending_events(lanes, limit=policy.batch_events)
            pending = drain_letters.without_followers(read, heads)
            held += len(read) - len(pending)
        _tell_claimed(step, lanes, pending)
        delivery, events = send_and_settle(pending, policy)
        beside = [event for event in events if event.beside_letters]
        if beside:
            drain_letters.settled(beside)
        refused = [(pending[i], delivery.refused.get(i, "")) for i in delivery.alone]
        for_good = remember_refused(events, refused, policy)
        if for_good:
            drain_letters.give_up(for_good, attempts=policy.refusals)
    _tell_sent(step, events, delivery, refused)
    _record(events, pending, delivery, policy)
    everything = len(lanes) < policy.lanes_per_claim
    whole = everything and len(pending) <= policy.batch_events // len(lanes)
    return _Batch(
        settled=events,
        refused=len(refused),
        held=held,
        error=delivery.error,
        last=whole and delivery.complete and not held,
        much_more=not everything and len(events) >= policy.much,
    )


def _plan_by_index() -> None:
    """Have this transaction's statements walk along indexes.

    All that a drain reads and writes is found by a key, in the order of an index. Left to itself
    the planner sorts whole lanes for a batch, and reads the whole table to settle one: the work of
    a batch then grows with the backlog.
    """
    plan_without("bitmapscan", "seqscan", "hashjoin", "mergejoin")


def claim_lanes(limit: int) -> list[int]:
    """Lock up to `limit` lanes that have pending events, the longest waiting first.

    Lanes that another drain holds are skipped. The lock lasts until the transaction ends. A lane
    with nothing but refused keys or unknown topics is not claimed: it would take another's place.
    Nor is a paused one; PostgreSQL asks again once it has the lock.
    """
    first_pending = RawSQL(  # noqa: S611  (no text of anybody else)
        f"""(SELECT id FROM event_outbox WHERE event_outbox.lane = outbox_lane.lane AND {_PENDING}
             ORDER BY id LIMIT 1)""",
        _pending_parameters(),
    )
    lanes = (
        OutboxLane.objects.select_for_update(skip_locked=True, of=("self",))
        .annotate(first_pending=first_pending)
        .filter(first_pending__isnull=False, paused=False)
        .order_by("first_pending")
    )
    return list(lanes.values_list("lane", flat=True)[:limit])


# What of a lane may go out now, for a query that has its row of outbox_lane at hand: see
# outbox/floors.py for the floor. Left out: keys that Kafka has just refused, topics not in the map.
_PENDING = f"""
    status = 0 AND event_outbox.id >= {floors.FLOOR_OF_LANE} AND topic = ANY(%s)
    AND (topic, key) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""


def _pending_parameters() -> list[Any]:
    left_out = keys_left_out()
    return [
        *_floors.parameters(),
        list(conf.partition_counts()),
        [topic for topic, _ in left_out],
        [key for _, key in left_out],
    ]


def pending_events(lanes: Sequence[int], *, limit: int) -> list[PendingEvent]:
    """The next events of the claimed lanes in order of id, at most about `limit`.

    A statement of its own, after the lock: its snapshot sees everything that the lane's previous
    holder committed. Read by status, never by "id greater than": ids are drawn before commit.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT event.id, event.lane, event.event_id::text, event.type, event.topic, event.key,
                   event.source, {rfc3339_of("event.created_at")}, event.payload, event.traceparent,
                   event.correlation_id, event.headers,
                   extract(epoch FROM event.created_at)::float8, event.letters_open
            FROM outbox_lane
            CROSS JOIN LATERAL (
                SELECT event_outbox.*, letters_open FROM event_outbox
                WHERE event_outbox.lane = outbox_lane.lane AND {_PENDING}
                ORDER BY id LIMIT %s
            ) AS event
            WHERE outbox_lane.lane = ANY(%s)
            ORDER BY event.id
            """,
            (*_pending_parameters(), limit // len(lanes) + 1, list(lanes)),
        )
        return list(map(PendingEvent._make, cursor.fetchall()))


def _not_ready(policy: DrainPolicy) -> str:
    """Why Kafka cannot be used now, or an empty string."""
    if time.monotonic() < _backoff.until:
        return "backing off"
    if _backoff.warm:
        return ""
    try:
        _compare_lanes()
        producer.warm_up(conf.partition_counts(), timeout=policy.connect_timeout)
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
    """Say aloud what waits for a route; looks at a bounded number of pending rows of each lane."""
    with transaction.atomic(), connection.cursor() as cursor:
        _plan_by_index()
        cursor.execute(
            f"""
            SELECT topic, count(*), min(id)
            FROM outbox_lane
            CROSS JOIN LATERAL (
                SELECT topic, id FROM event_outbox
                WHERE event_outbox.lane = outbox_lane.lane AND status = 0
                  AND event_outbox.id >= {floors.FLOOR_OF_LANE}
                ORDER BY id LIMIT %s
            ) AS event
            WHERE topic <> ALL(%s) GROUP BY topic
            """,
            (*_floors.parameters(), _UNKNOWN_LOOKED_AT, list(conf.partition_counts())),
        )
        for topic, events, first_id in cursor.fetchall():
            metrics.DRAIN_FAILED.labels("unknown_topic").inc()
            log.error("topic_without_route", topic=topic, events=events, first_id=first_id)


def _tell_claimed(step: Step, lanes: Sequence[int], pending: Sequence[PendingEvent]) -> None:
    if not step.recorded:
        return
    topics = {event.topic for event in pending}
    step.tell(
        {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": len(pending),
            "outbox.lanes": list(lanes),
        }
    )
    if len(topics) == 1:
        step.tell({"messaging.destination.name": topics.pop()})
    step.link(event.traceparent for event in pending)


def _tell_sent(
    step: Step,
    settled: Sequence[PendingEvent],
    delivery: Produced,
    refused: Sequence[tuple[PendingEvent, str]],
) -> None:
    step.tell({"outbox.events_settled": len(settled), "outbox.events_refused": len(refused)})
    if delivery.error:
        step.fail("transport", delivery.error)
    elif refused:
        event, reason = refused[0]
        step.fail("refused", f"{event.event_id}: {reason or 'Kafka gave no reason'}")


def _record(
    settled: Sequence[PendingEvent],
    pending: Sequence[PendingEvent],
    delivery: Produced,
    policy: DrainPolicy,
) -> None:
    metrics.DRAIN_BATCH.observe(len(pending))
    for topic, count in Counter(event.topic for event in settled).items():
        metrics.DRAINED.labels(topic).inc(count)
    if settled:
        oldest = min(event.committed for event in settled)
        metrics.COMMIT_TO_KAFKA.observe(max(0.0, time.time() - oldest))
    if delivery.alone:
        metrics.DRAIN_FAILED.labels("refused").inc()
    backs_off = time.monotonic() < _backoff.until  # the other claim of this run has failed
    if not delivery.error:
        if not backs_off:
            _backoff.succeeded()
        log.info(
            "drained",
            events=len(settled),
            refused=len(delivery.alone),
            **correlation_fields(event.correlation_id for event in settled),
        )
    else:
        if not backs_off:
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
