"""What a batch did, as metrics, log lines and the fields of its span."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import structlog

from outbox import metrics
from outbox.conf import DrainPolicy
from outbox.drain.produce import Produced
from outbox.drain.state import DrainState
from outbox.envelope import correlation_fields
from outbox.lanes.floors import Floors
from outbox.lanes.pending import PendingEvent, topics_without_route
from outbox.tracing import Step

__all__ = ["record", "report_claimed", "report_sent", "report_unknown_topics"]

log = structlog.get_logger("outbox.drain")


def report_unknown_topics(floors: Floors) -> None:
    for topic, events, first_id in topics_without_route(floors):
        metrics.DRAIN_FAILED.labels("unknown_topic").inc()
        log.error("topic_without_route", topic=topic, events=events, first_id=first_id)


def report_claimed(step: Step, lanes: Sequence[int], pending: Sequence[PendingEvent]) -> None:
    """Fields of the batch's span, once its events are read."""
    if not step.recorded:
        return
    topics = {event.topic for event in pending}
    step.record(
        {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": len(pending),
            "outbox.lanes": list(lanes),
        }
    )
    if len(topics) == 1:
        step.record({"messaging.destination.name": topics.pop()})
    step.link(event.traceparent for event in pending)


def report_sent(
    step: Step,
    settled: Sequence[PendingEvent],
    delivery: Produced,
    refused: Sequence[tuple[PendingEvent, str]],
) -> None:
    """Fields of the batch's span, once Kafka has answered."""
    step.record({"outbox.events_settled": len(settled), "outbox.events_refused": len(refused)})
    if delivery.error:
        step.fail("transport", delivery.error)
    elif refused:
        event, reason = refused[0]
        step.fail("refused", f"{event.event_id}: {reason or 'Kafka gave no reason'}")


def record(
    settled: Sequence[PendingEvent],
    pending: Sequence[PendingEvent],
    delivery: Produced,
    policy: DrainPolicy,
    state: DrainState,
) -> None:
    """Metrics and the log line of a batch; Kafka is left alone for a while if it failed."""
    metrics.DRAIN_BATCH.observe(len(pending))
    for topic, count in Counter(event.topic for event in settled).items():
        metrics.DRAINED.labels(topic).inc(count)
    if settled:
        oldest = min(event.committed for event in settled)
        metrics.COMMIT_TO_KAFKA.observe(max(0.0, time.time() - oldest))
    if delivery.alone:
        metrics.DRAIN_FAILED.labels("refused").inc()
    backs_off = state.kafka.active  # the other claim of this run has failed
    if not delivery.error:
        if not backs_off:
            state.kafka.succeeded()
        log.info(
            "drained",
            events=len(settled),
            refused=len(delivery.alone),
            **correlation_fields(event.correlation_id for event in settled),
        )
    else:
        if not backs_off:
            state.kafka_failed(policy)
        metrics.DRAIN_FAILED.labels("transport").inc()
        log.warning(
            "drain_incomplete",
            events=len(pending),
            settled=len(settled),
            refused=len(delivery.alone),
            error=delivery.error,
            backoff_seconds=state.kafka.delay,
            **correlation_fields(event.correlation_id for event in pending),
        )
