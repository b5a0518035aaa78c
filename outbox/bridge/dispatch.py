"""From buffered messages to tasks: cut chunks, group them, hand them to Celery."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import structlog

from outbox import conf, metrics, tracing
from outbox.bridge.partition import Flight, Partition, Partitions
from outbox.bridge.send_interval import SendInterval
from outbox.conf import BridgePolicy
from outbox.dead_letters.unknown_type import sort_out
from outbox.declaration import Route
from outbox.envelope import EventEnvelope, ReceivedMessage, correlation_fields, event_fields
from outbox.inbox.chunk import Chunk, describe_chunks
from outbox.inbox.positions import record_retry
from outbox.process import task_queue

__all__ = ["Dispatch"]

_QUEUE_CHECK_SECONDS = 0.5
_REDIS_RETRY_SECONDS = 1.0
_UNKNOWN_TYPE_SECONDS = 1.0  # between looks at an event that waits for its type

log = structlog.get_logger("outbox.bridge")


class Dispatch:
    """Sends the chunks of one bridge. It calls `on_sent` with the time (monotonic clock) of each send, so that
    the positions are read soon after."""

    def __init__(
        self,
        route: Route,
        policy: BridgePolicy,
        partitions: Partitions,
        *,
        on_sent: Callable[[float], None],
    ) -> None:
        self._route = route
        self._policy = policy
        self._partitions = partitions
        self._on_sent = on_sent
        self.interval = SendInterval(policy)
        self._queue_length = self._next_queue_check = 0.0
        self._unknown_types: set[str] = set()

    def send_what_is_due(self) -> None:
        """Send chunks that wait for a retry, then new ones, unless the Celery queue is long."""
        now = time.monotonic()
        if not any(p.buffer or p.held for p in self._partitions.values()):
            return
        waiting = self._queued(now)
        if waiting > self._policy.queue_bound:
            return
        again = waiting <= self._policy.resend_bound
        for partition in self._partitions.values():
            ready = partition.held and now >= partition.retry_at and not partition.paused
            if ready and (again or not partition.held_was_sent):
                self._send_held(partition)
        for partitions in self._groups(now):
            self._send(partitions)

    def _queued(self, now: float) -> float:
        """Length of the Celery queue, looked up twice a second, so that Redis never grows without
        a bound; infinite while Redis is unavailable."""
        if now >= self._next_queue_check:
            self._next_queue_check = now + _QUEUE_CHECK_SECONDS
            self._queue_length = task_queue.queue_length(self._route.queue)
        return self._queue_length

    def _groups(self, now: float) -> Iterator[list[Partition]]:
        """Groups of idle partitions with messages, each up to one task's size, if it is time to send."""
        idle = [p for p in self._partitions.values() if p.may_be_cut(now)]
        if not idle:
            return
        waiting = sum(len(p.buffer) for p in idle)
        size = sum(p.buffered_bytes for p in idle)
        if not self.interval.is_due(now, events=waiting, size=size):
            return
        self.interval.note_sent(now, events=waiting)
        group: list[Partition] = []
        events = size = 0
        for partition in idle:
            full = (
                events + len(partition.buffer) > self._policy.chunk_events
                or size + partition.buffered_bytes > self._policy.chunk_bytes
            )
            if group and full:
                yield group
                group, events, size = [], 0, 0
            group.append(partition)
            events += len(partition.buffer)
            size += partition.buffered_bytes
        yield group

    def _send(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            partition.held, partition.held_was_sent = self._cut(partition), False
        if cut := [partition for partition in partitions if partition.held]:
            self._take_off(cut)

    def _send_held(self, partition: Partition) -> None:
        """Send a held chunk again, alone. It counts as an attempt only if Redis took it."""
        if partition.held_was_sent:
            record_retry(self._route.handler, [partition.key])
            partition.attempts += 1
        self._take_off([partition])

    def _take_off(self, partitions: Sequence[Partition]) -> None:
        """Take the next chunks off the buffers and send them. The deadline is the same for each attempt: a
        missing worker is not the chunk's fault, and an event that ends its process must be found soon."""
        now = time.monotonic()
        chunks = [
            replace(partition.held, attempt=partition.attempts)
            for partition in partitions
            if partition.held
        ]
        traceparent = self.trigger(chunks)
        if traceparent is None:
            for partition in partitions:
                partition.retry_at = now + _REDIS_RETRY_SECONDS
            return
        for partition, chunk in zip(partitions, chunks, strict=True):
            partition.flight = Flight(chunk, now + self._policy.deadline, traceparent)
            if not (chunk.attempt or partition.sent_early):
                partition.flight.ask_at = now + self._policy.ask_after
            partition.held = None
        self._on_sent(now)

    def _cut(self, partition: Partition) -> Chunk | None:
        """Take the next chunk off the buffer: at most chunk_events and chunk_bytes, at least one
        message. It ends before an event that must wait because its type is not known here; None if
        that is the first one."""
        messages = self._first_messages(partition)
        events = [(each.offset, each.envelope(partition.topic_id)) for each in messages]
        run = sort_out(self._route, events)
        next_offset = messages[-1].offset + 1
        if run.waits:
            next_offset, event = run.waits
            messages = [message for message in messages if message.offset < next_offset]
            if not messages:
                self._wait(partition, event)
                return None
        for _ in messages:
            partition.popleft()
        partition.unknown_type = ""
        topic, number = partition.key
        return Chunk(
            topic=topic,
            topic_id=partition.topic_id,
            partition=number,
            first_offset=partition.position,
            next_offset=next_offset,
            events=tuple(run.events),
        )

    def _first_messages(self, partition: Partition) -> list[ReceivedMessage]:
        """The messages that may form one chunk. A partition that waits for a type gives only the event that
        it waits for."""
        messages: list[ReceivedMessage] = []
        size = 0
        most = 1 if partition.unknown_type else self._policy.chunk_events
        for message in islice(partition.buffer, most):
            size += message.size
            if messages and size > self._policy.chunk_bytes:
                break
            messages.append(message)
        return messages

    def _wait(self, partition: Partition, event: EventEnvelope) -> None:
        partition.look_again_at = time.monotonic() + _UNKNOWN_TYPE_SECONDS
        if partition.unknown_type:
            return
        partition.unknown_type = event.type
        log.error(
            "unknown_type_waits",
            handler=self._route.handler,
            type=event.type,
            release=conf.release(),
            event_id=str(event.event_id),
            topic=partition.key[0],
            partition=partition.key[1],
            advice="start the processes of the release that publishes this type",
            **event_fields(event.trace),
        )

    def measure_waiting(self) -> None:
        """Set the gauge of waiting partitions for each type that was met, to 0 if none waits any more."""
        waiting = Counter(p.unknown_type for p in self._partitions.values() if p.unknown_type)
        self._unknown_types.update(waiting)
        for type_ in self._unknown_types:
            metrics.UNKNOWN_TYPE_WAITING.labels(self._route.handler, type_, conf.release()).set(
                waiting[type_]
            )

    def trigger(self, chunks: Sequence[Chunk]) -> str | None:
        """Hand chunks to Celery. Returns the traceparent of the send, None if Redis does not take them. The
        position refuses a chunk that a worker runs too late."""
        handler = self._route.handler
        with tracing.step(f"bridge {handler}", tracing.CONSUMER) as step:
            step.record({"messaging.consumer.group.name": handler})
            describe_chunks(step, chunks)
            if not task_queue.send(self._route, chunks=[chunk.to_task() for chunk in chunks]):
                return None
            metrics.CHUNKS_SENT.labels(handler).inc(len(chunks))
            log.info(
                "sent",
                handler=handler,
                chunks=len(chunks),
                **correlation_fields(
                    event.trace.correlation_id for chunk in chunks for _, event in chunk.events
                ),
            )
            return tracing.current_traceparent()
