"""Compares chunks with the positions, which alone say what is applied, and follows positions that others move."""

from __future__ import annotations

import math
import time

import structlog

from outbox import metrics
from outbox.bridge.group import Group
from outbox.bridge.partition import Partition
from outbox.conf import BridgePolicy
from outbox.declaration import Route
from outbox.envelope import correlation_fields, span_fields
from outbox.inbox.positions import Position, Step, free_positions, read_positions, step_over
from outbox.process import task_queue

__all__ = ["Confirm"]

_PAUSED_LOOK_SECONDS = 0.5  # between looks at the positions if nothing is in flight

log = structlog.get_logger("outbox.bridge")


class Confirm:
    """Compares the partitions of one bridge with their positions in the database."""

    def __init__(self, route: Route, policy: BridgePolicy, group: Group) -> None:
        self._route = route
        self._policy = policy
        self._group = group
        self._partitions = group.partitions
        self._next_compare = self._next_follow = self._next_ask = 0.0
        for reason in metrics.CHUNKS_RETRIED_FOR:
            metrics.CHUNKS_RETRIED.labels(route.handler, reason)  # shown as 0

    def expect_answer(self, sent_at: float) -> None:
        """Chunks went out at `sent_at` (monotonic clock): compare them soon."""
        self._next_compare = min(self._next_compare, sent_at + self._policy.confirm_interval)

    def compare_flights(self) -> None:
        """Confirm chunks whose positions have advanced, and prepare the retry of chunks that failed."""
        now = time.monotonic()
        open_partitions = [p for p in self._partitions.values() if p.flight or p.paused]
        if not open_partitions or now < self._next_compare:
            return
        in_flight = any(partition.flight for partition in open_partitions)
        self._next_compare = now + (
            self._policy.confirm_interval if in_flight else _PAUSED_LOOK_SECONDS
        )
        positions = read_positions(self._route.handler, [p.key for p in open_partitions])
        for partition in open_partitions:
            self._compare(partition, positions[partition.key], now)
        self._ask_for_lost(now)

    def _compare(self, partition: Partition, position: Position, now: float) -> None:
        partition.paused = position.paused
        partition.attempts = position.attempts
        flight = partition.flight
        if flight is None:
            return
        if position.next_offset > flight.chunk.next_offset:
            self._group.go_to(partition, position)  # another program has moved the position
        elif position.next_offset == flight.chunk.next_offset:
            partition.flight = None
            partition.position = position.next_offset
            partition.failed_at = None
            partition.sent_early = False
        elif position.failed_at and position.failed_at != partition.failed_at:
            partition.failed_at = position.failed_at
            delays = self._route.retries
            backoff = delays[min(position.attempts, len(delays) - 1)]
            self._retry_later(partition, "failed", now + backoff)
        elif now > flight.deadline:
            self._retry_later(partition, "deadline", now)

    def _ask_for_lost(self, now: float) -> None:
        """Send a chunk again, once, if no worker seems to have it: its worker was killed, or Redis lost it.

        The bridge cannot be certain, because a worker may have taken the chunk off its queue and not begun
        it. So the second send counts as no attempt, and its effects write no note of their start; otherwise
        a slow worker would look like an event that ends its process (docs/guarantees.md#r11). If a worker
        holds the position, or the chunk was sent as a new attempt, only the deadline decides.
        """
        asked = [p for p in self._partitions.values() if p.flight and now >= p.flight.ask_at]
        if not asked or now < self._next_ask:
            return
        self._next_ask = now + self._policy.ask_interval
        if task_queue.queue_length(self._route.queue):
            return  # the queue may hold it
        free = free_positions(self._route.handler, [partition.key for partition in asked])
        for partition in asked:
            assert partition.flight is not None
            position = free.get(partition.key)
            if position is None:
                partition.flight.ask_at = math.inf
            elif position.next_offset == partition.position:
                self._retry_later(partition, "lost", now)
                partition.held_was_sent = False
                partition.sent_early = True

    def _retry_later(self, partition: Partition, reason: str, retry_at: float) -> None:
        assert partition.flight is not None
        sent = partition.flight
        partition.held = sent.chunk
        partition.held_was_sent = True
        partition.flight = None
        partition.retry_at = retry_at
        metrics.CHUNKS_RETRIED.labels(self._route.handler, reason).inc()
        log.warning(
            "chunk_retry",
            handler=self._route.handler,
            reason=reason,
            topic=partition.key[0],
            partition=partition.key[1],
            first_offset=partition.held.first_offset,
            attempts=partition.attempts,
            **span_fields(sent.traceparent),
            **correlation_fields(event.trace.correlation_id for _, event in sent.chunk.events),
        )

    def follow_positions(self) -> None:
        """Read on from positions that a replay or a repair has moved; checked once a second."""
        now = time.monotonic()
        if now < self._next_follow:
            return
        self._next_follow = now + self._policy.mirror_interval
        self._group.take_in_added()
        if not self._partitions:
            return
        positions = read_positions(self._route.handler, self._partitions)
        for key, position in positions.items():
            partition = self._partitions[key]
            partition.paused = position.paused
            ours = partition.position
            moved = (
                position.next_offset < ours if partition.flight else position.next_offset != ours
            )
            if moved:
                self._group.go_to(partition, position)
        self._step_over_markers()

    def _step_over_markers(self) -> None:
        """Move positions to the end of their logs if no message lies in between. Markers between messages
        are passed with the next chunk."""
        steps = [
            Step(key=p.key, topic_id=p.topic_id, old=p.position, new=p.end)
            for p in self._partitions.values()
            if p.is_idle and p.position < p.end
        ]
        if not steps:
            return
        moved = step_over(self._route.handler, steps)
        for step in steps:
            if step.key in moved:
                self._partitions[step.key].position = step.new
