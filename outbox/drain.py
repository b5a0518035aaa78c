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
from dataclasses import dataclass, replace

import structlog
from django.db import connection, transaction

from outbox import claims, conf, drain_letters, metrics, tracing
from outbox.conf import DRAIN, DrainPolicy
from outbox.envelope import correlation_fields
from outbox.failures import DATABASE_AWAY
from outbox.kafka import producer
from outbox.refusals import Backoff, PendingEvent, Produced, remember_refused
from outbox.settling import send_and_settle
from outbox.topics import LANES
from outbox.tracing import Step

__all__ = ["DrainReport", "drain", "drain_batch"]

log = structlog.get_logger("outbox.drain")


@dataclass(slots=True)
class DrainReport:
    """What one run did: events settled, and why it stopped early, if it did.

    `exhausted`: its last claim found nothing that may be sent.
    """

    settled: int = 0
    stopped: str = ""
    exhausted: bool = False


_backoff = Backoff()


def drain(policy: DrainPolicy = DRAIN) -> DrainReport:
    """Drain until nothing is pending, Kafka fails, or `run_seconds` are over.

    Connects before it claims, so that no lane is held while Kafka is away. A batch that settles
    nothing ends the run, unless its refusals have just made room for other keys. Behind a large
    batch a second thread claims beside this one, as another drain would: while one has PostgreSQL
    at work the other uses the processor.
    """
    claims.refresh_floors(policy)  # and sweep below them, though Kafka may be away
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
            claims.refresh_floors(policy)
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


_FAILURES = (producer.KafkaException, producer.PartitionMismatch, *DATABASE_AWAY)


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
        """One batch after the other, each told in the report, until there is a reason to stop.

        A message costs Kafka less than a request, and every partition of a batch is one: behind a
        sparse batch that was not the last the next ones take all lanes, and the run waits between
        them for more to come.
        """
        policy, all_lanes = self.policy, replace(self.policy, lanes_per_claim=LANES)
        while not report.stopped:
            if not self.goes_on:
                report.stopped = "the other claim failed" if self.failed else "time is up"
                return
            batch = drain_batch(policy, raise_floors=raise_floors)
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
            if batch.sparse and policy is all_lanes:
                time.sleep(policy.gather)
            policy = all_lanes if batch.sparse else self.policy


@dataclass(frozen=True, slots=True)
class _Batch:
    settled: Sequence[PendingEvent]
    refused: int
    held: int
    error: str
    last: bool  # nothing else could be claimed; who commits later asks again
    much_more: bool
    sparse: bool  # little, all that its lanes had, and all of it went out


def drain_batch(policy: DrainPolicy = DRAIN, *, raise_floors: bool = True) -> _Batch | None:
    """Claim, produce and settle one batch; None when no lane has anything to send.

    `raise_floors`: one thread of a process does so, on the connection that it keeps.
    """
    if raise_floors:
        claims.refresh_floors(policy)
    with tracing.step("drain", tracing.PRODUCER) as step:
        batch = _drain_batch(policy, step)
        if batch is None:
            step.forget()
        return batch


def _drain_batch(policy: DrainPolicy, step: Step) -> _Batch | None:
    with transaction.atomic():
        claims.plan_by_index()
        lanes = claims.claim_lanes(policy.lanes_per_claim)
        if not lanes:
            return None
        pending = claims.pending_events(lanes, limit=policy.batch_events)
        held = 0
        if any(event.beside_letters for event in pending):
            held, heads = drain_letters.hold_followers(lanes)
            read = claims.pending_events(lanes, limit=policy.batch_events)
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
    share = policy.batch_events // len(lanes)
    whole = everything and len(pending) <= share
    return _Batch(
        settled=events,
        refused=len(refused),
        held=held,
        error=delivery.error,
        last=whole and delivery.complete and not held,
        much_more=not everything and len(events) >= policy.much,
        sparse=(
            len(pending) < policy.few
            and max(Counter(event.lane for event in pending).values(), default=0) <= share
            and delivery.complete
            and not held
        ),
    )


def _not_ready(policy: DrainPolicy) -> str:
    """Why Kafka cannot be used now, or an empty string."""
    if time.monotonic() < _backoff.until:
        return "backing off"
    if _backoff.warm:
        return ""
    try:
        claims.compare_lanes()
        producer.warm_up(conf.partition_counts(), timeout=policy.connect_timeout)
    except (claims.LaneMismatch, producer.PartitionMismatch) as error:
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


def _tell_unknown_topics() -> None:
    """Say aloud what waits for a route."""
    for topic, events, first_id in claims.topics_without_route():
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
