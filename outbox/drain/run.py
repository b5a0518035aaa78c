"""The drain: claim lanes, produce their pending events, settle what Kafka acknowledged, in one short
transaction a batch (guarantees.md#r3, docs/outbox.md#the-drain)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, replace

import structlog
from django.db import connection

from outbox import conf, metrics
from outbox.conf import DRAIN, DrainPolicy
from outbox.database.errors import DATABASE_AWAY
from outbox.drain.batch import DrainBatch, drain_batch
from outbox.drain.report import report_unknown_topics
from outbox.drain.state import DrainState
from outbox.kafka import producer
from outbox.lanes import claim
from outbox.publish import nudge
from outbox.topics import LANES

__all__ = ["Drain", "DrainReport"]

log = structlog.get_logger("outbox.drain")


@dataclass(slots=True)
class DrainReport:
    """What one run did: events settled, and why it stopped early, if it did.

    `exhausted`: its last claim found nothing that may be sent.
    """

    settled: int = 0
    stopped: str = ""
    exhausted: bool = False


class Drain:
    """The drain of one process: it is made once and run again and again, never by two threads."""

    def __init__(self, policy: DrainPolicy = DRAIN) -> None:
        self.policy = policy
        self.state = DrainState()

    def run(self, *, seconds: float | None = None) -> DrainReport:
        """Drain until nothing is pending, Kafka fails, or `seconds` (`run_seconds`) are over.

        Connects before it claims, so that no lane is held while Kafka is unavailable. A batch that
        settles nothing ends the run, unless its refusals have just made room for other keys. Behind a
        large batch a second thread claims in parallel."""
        policy, state = self.policy, self.state
        state.floors.refresh(policy)  # and sweep below them, though Kafka may be away
        report = DrainReport(stopped=self._not_ready())
        if report.stopped:
            return report
        limit = policy.run_seconds if seconds is None else seconds
        run = _Run(state, policy, time.monotonic() + limit)
        second: Future[DrainReport] | None = None
        with ThreadPoolExecutor(1, "drain") as beside:
            for batch in run.batches(report):
                if second is None and batch.much_more and run.goes_on:
                    second = beside.submit(copy_context().run, _drain_beside, run)
            while second and wait([second], timeout=policy.floor_interval).not_done:
                state.floors.refresh(policy)
        if second:
            report.settled += second.result().settled
            report.stopped = report.stopped or second.result().stopped
        if report.exhausted:
            report_unknown_topics(state.floors)
        return report

    def linger(self) -> int:
        """Drain again and again, as long as there is something, for `linger` seconds at most."""
        if not nudge.hold_nudges():
            return 0
        policy = self.policy
        total, until = 0, time.monotonic() + policy.linger
        try:
            while time.monotonic() < until:
                time.sleep(policy.linger_pause)
                report = self.run(seconds=policy.linger)
                total += report.settled
                if report.stopped or not report.settled:
                    break
        finally:
            nudge.take_nudge()
        # Once more for commits that found the nudges held meanwhile.
        return total + self.run(seconds=policy.linger).settled

    def _not_ready(self) -> str:
        """Why Kafka cannot be used now, or an empty string."""
        state = self.state
        if state.kafka.active:
            return "backing off"
        if state.connected:
            return ""
        try:
            claim.compare_lanes()
            producer.warm_up(conf.partition_counts(), timeout=self.policy.connect_timeout)
        except (claim.LaneMismatch, producer.PartitionMismatch) as error:
            level, reason, stopped = logging.ERROR, "mismatch", str(error)
        except producer.KafkaException as error:
            level, reason, stopped = logging.WARNING, "connect", str(error)
        else:
            state.connected = True
            return ""
        producer.discard()
        state.kafka_failed(self.policy)
        metrics.DRAIN_FAILED.labels(reason).inc()
        log.log(level, "drain_not_ready", error=stopped, backoff_seconds=state.kafka.delay)
        return stopped


@dataclass(slots=True)
class _Run:
    """What the threads of one run share: if Kafka fails for one of them, both end."""

    state: DrainState
    policy: DrainPolicy
    deadline: float
    failed: bool = False

    @property
    def goes_on(self) -> bool:
        return not self.failed and time.monotonic() < self.deadline

    def batches(self, report: DrainReport, *, raise_floors: bool = True) -> Iterator[DrainBatch]:
        """One batch after the other, each added to the report, until there is a reason to stop
        (docs/outbox.md#the-drain: three cases for speed)."""
        all_lanes = replace(self.policy, lanes_per_claim=LANES)
        policy = all_lanes if self.state.sparse else self.policy
        while not report.stopped:
            if not self.goes_on:
                report.stopped = "the other claim failed" if self.failed else "time is up"
                return
            batch = drain_batch(self.state, policy, raise_floors=raise_floors)
            if batch is None:
                report.exhausted = True
                return
            report.settled += len(batch.settled)
            report.stopped = batch.error
            self.failed = self.failed or bool(batch.error)
            if not batch.settled and not batch.refused and not batch.held:
                report.stopped = report.stopped or "nothing settled"
            self.state.sparse = batch.sparse
            yield batch
            if batch.last:
                return
            if batch.sparse and policy is all_lanes:
                time.sleep(policy.gather)
            policy = all_lanes if batch.sparse else self.policy


def _drain_beside(run: _Run) -> DrainReport:
    """The work of the second thread. It has a connection and a producer of its own while there
    is much to do, and reads the floors that the first thread raises."""
    report = DrainReport()
    try:
        producer.warm_up(conf.partition_counts(), timeout=run.policy.connect_timeout)
        for _ in run.batches(report, raise_floors=False):
            pass
    except _FAILURES as error:
        metrics.DRAIN_FAILED.labels("connect").inc()
        log.warning("drain_beside_failed", error=str(error))
        run.state.connected = False  # the next run checks before it claims
    finally:
        producer.discard()
        connection.close()
    return report


_FAILURES = (producer.KafkaException, producer.PartitionMismatch, *DATABASE_AWAY)
