"""The bridge of one handler: poll > chunk > trigger > position advanced > commit offset.

The bridge remembers nothing that matters. Positions say what is applied; a chunk whose position
has not moved when its deadline passes is sent again (rule R10), and that one mechanism covers a
lost message, a killed worker, a flushed Redis and a failing effect alike. Offsets committed to
Kafka only mirror the positions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import structlog
from django.db import close_old_connections

from outbox import broker, inbox, metrics, tracing
from outbox.chunks import Chunk, tell_chunks
from outbox.conf import BRIDGE, BridgePolicy, Route
from outbox.envelope import correlation_fields, from_kafka
from outbox.failures import DATABASE_AWAY
from outbox.inbox import Position
from outbox.kafka import admin
from outbox.kafka.consumer import ReceivedMessage, TopicConsumer
from outbox.pace import Pace
from outbox.partitions import Flight, Partition
from outbox.stalls import StallWatch
from outbox.topics import PartitionKey

__all__ = ["Bridge", "PositionMissing"]

_LOOK_SECONDS = 1.0  # for the broker's answer

log = structlog.get_logger("outbox.bridge")


class PositionMissing(RuntimeError):
    """The handler has no position for a partition: run `manage.py sync_routes` once, then start again."""


class Bridge:
    """Runs one route until `stop` is set; one instance, one thread, one member of the group.

    The consumer group is named after the handler, so lag in any Kafka tool is the handler's.
    """

    def __init__(
        self, route: Route, *, stop: threading.Event, policy: BridgePolicy = BRIDGE
    ) -> None:
        self._route = route
        self._stop = stop
        self._policy = policy
        self._partitions: dict[PartitionKey, Partition] = {}
        self._next_confirm = self._next_mirror = self._next_queue_check = 0.0
        self._pace = Pace(policy)
        self._next_follow = self._database_again = 0.0
        metrics.POSITION_LOST.labels(route.handler)  # shown as 0, so that the first one is a rise
        self._queue_length: float = 0
        metrics.CONSUMER_STALLED.labels(route.handler)
        self._stalls = StallWatch(policy.stall_after)
        self._unheld = StallWatch(policy.unheld_after)
        self._consumer = self._new_consumer()

    def _new_consumer(self) -> TopicConsumer:
        return TopicConsumer(
            group=self._route.handler,
            topic=self._route.topic.name,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost_offset=self._on_lost_offset,
        )

    def run(self) -> None:
        """Until told to stop; then waits for what is in flight, mirrors it and leaves the group."""
        try:
            while not self._stop.is_set():
                self._cycle(take_more=True)
            give_up = time.monotonic() + self._policy.stop_timeout
            while self._in_flight() and time.monotonic() < give_up:
                self._cycle(take_more=False)
            self._mirror()
        finally:
            self._consumer.close()
            log.info("bridge_stopped", handler=self._route.handler)

    # -- one cycle ---------------------------------------------------------------------------

    def _cycle(self, *, take_more: bool) -> None:
        self._receive()
        self._mirror_when_due()  # also without the database: it says that we are here
        if time.monotonic() < self._database_again:
            return
        try:
            self._confirm()
            self._follow_positions()
            if take_more:
                self._dispatch()
        except DATABASE_AWAY as error:
            log.warning(
                "bridge_database_unavailable", handler=self._route.handler, error=str(error)
            )
            close_old_connections()
            self._database_again = time.monotonic() + 1.0
            self._unheld.forget()  # those who hold the rest may wait for it, too

    def _receive(self) -> None:
        busy = any(
            p.flight or ((p.held or p.buffer) and not p.paused) for p in self._partitions.values()
        )
        timeout = self._policy.confirm_interval if busy else self._policy.poll_timeout
        for message in self._consumer.receive(limit=self._policy.chunk_events, timeout=timeout):
            partition = self._partitions.get((message.topic, message.partition))
            if partition is None:
                continue
            partition.append(message)
            self._stalls.calm()
        self._regulate_fetching()
        self._ask_again()
        self._look_for_stall()

    def _regulate_fetching(self) -> None:
        """Keep the buffers bounded: a slow handler pauses its partitions, polling goes on."""
        for partition in self._partitions.values():
            wanted = (
                len(partition.buffer) < self._policy.buffer_events
                and partition.buffered_bytes < self._policy.buffer_bytes
            )
            if wanted != partition.fetching:
                (self._consumer.resume if wanted else self._consumer.pause)([partition.key])
                partition.fetching = wanted

    # -- confirm: positions are the truth ---------------------------------------------------

    def _in_flight(self) -> list[Partition]:
        return [partition for partition in self._partitions.values() if partition.flight]

    def _confirm(self) -> None:
        now = time.monotonic()
        open_partitions = [p for p in self._partitions.values() if p.flight or p.paused]
        if not open_partitions or now < self._next_confirm:
            return
        in_flight = any(partition.flight for partition in open_partitions)
        self._next_confirm = now + (self._policy.confirm_interval if in_flight else 0.5)
        positions = inbox.read_positions(self._route.handler, [p.key for p in open_partitions])
        for partition in open_partitions:
            self._compare(partition, positions[partition.key], now)

    def _compare(self, partition: Partition, position: Position, now: float) -> None:
        partition.paused = position.paused
        partition.attempts = position.attempts
        flight = partition.flight
        if flight is None:
            return
        if position.next_offset > flight.chunk.next_offset:
            self._go_to(partition, position)  # somebody else has moved it meanwhile
        elif position.next_offset == flight.chunk.next_offset:
            partition.flight = None
            partition.position = position.next_offset
            partition.failed_at = None
        elif position.failed_at and position.failed_at != partition.failed_at:
            partition.failed_at = position.failed_at
            self._retry_later(partition, "failed", now + self._backoff(position.attempts))
        elif now > flight.deadline:
            self._retry_later(partition, "deadline", now)

    def _backoff(self, attempts: int) -> float:
        delays = self._route.retries
        return delays[min(attempts, len(delays) - 1)]

    def _retry_later(self, partition: Partition, reason: str, retry_at: float) -> None:
        assert partition.flight is not None
        partition.held = partition.flight.chunk
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
        )

    # -- dispatch ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
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

    def _groups(self, now: float) -> Iterator[list[Partition]]:
        """Idle partitions with messages, together up to one task's size, when it is time."""
        idle = [
            p
            for p in self._partitions.values()
            if p.buffer and not p.flight and not p.held and not p.paused
        ]
        if not idle:
            return
        waiting = sum(len(p.buffer) for p in idle)
        size = sum(p.buffered_bytes for p in idle)
        if not self._pace.is_due(now, events=waiting, size=size):
            return
        self._pace.note_sent(now, events=waiting)
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
        self._take_off(partitions)

    def _send_held(self, partition: Partition) -> None:
        """A chunk once more, alone; only one that was really sent counts as an attempt."""
        if partition.held_was_sent:
            inbox.record_retry(self._route.handler, [partition.key])
            partition.attempts += 1
        self._take_off([partition])

    def _take_off(self, partitions: Sequence[Partition]) -> None:
        """The deadline is the same each time: that nobody was there says nothing of the chunk,
        and an event that ends its process must be found soon."""
        now = time.monotonic()
        deadline = self._policy.deadline
        chunks = [
            replace(partition.held, attempt=partition.attempts)
            for partition in partitions
            if partition.held
        ]
        if not self._trigger(chunks):
            for partition in partitions:
                partition.retry_at = now + 1.0
            return
        for partition, chunk in zip(partitions, chunks, strict=True):
            partition.flight = Flight(chunk=chunk, deadline=now + deadline)
            partition.held = None
        self._next_confirm = min(self._next_confirm, now + self._policy.confirm_interval)

    def _cut(self, partition: Partition) -> Chunk:
        """Take the next chunk off the buffer: at most chunk_events and chunk_bytes, at least one message."""
        messages: list[ReceivedMessage] = []
        size = 0
        while partition.buffer and len(messages) < self._policy.chunk_events:
            size += partition.buffer[0].size
            if messages and size > self._policy.chunk_bytes:
                break
            messages.append(partition.popleft())
        return self._chunk(partition, messages)

    def _chunk(self, partition: Partition, messages: Sequence[ReceivedMessage]) -> Chunk:
        events = []
        for message in messages:
            event = from_kafka(
                topic=message.topic,
                topic_id=partition.topic_id,
                partition=message.partition,
                offset=message.offset,
                key=message.key,
                value=message.value,
                headers=message.headers,
            )
            # A foreign message may lack its type: then the handler must judge it by its value.
            if not event.type or event.type in self._event_types:
                events.append((message.offset, event))
        topic, number = partition.key
        return Chunk(
            topic=topic,
            topic_id=partition.topic_id,
            partition=number,
            first_offset=partition.position,
            next_offset=messages[-1].offset + 1,
            events=tuple(events),
        )

    @cached_property
    def _event_types(self) -> frozenset[str]:
        return self._route.event_types

    def _trigger(self, chunks: Sequence[Chunk]) -> bool:
        """Hand chunks to Celery; False if Redis is away. The position refuses those that are found late."""
        handler = self._route.handler
        with tracing.step(f"bridge {handler}", tracing.CONSUMER) as step:
            step.tell({"messaging.consumer.group.name": handler})
            tell_chunks(step, chunks)
            if not broker.send(self._route, chunks=[chunk.to_task() for chunk in chunks]):
                return False
            metrics.CHUNKS_SENT.labels(handler).inc(len(chunks))
            log.info(
                "sent",
                handler=handler,
                chunks=len(chunks),
                **correlation_fields(
                    event.trace.correlation_id for chunk in chunks for _, event in chunk.events
                ),
            )
            return True

    def _queued(self, now: float) -> float:
        """Length of the Celery queue, looked up twice a second, so that Redis never grows without
        a bound; infinite while Redis is away."""
        if now >= self._next_queue_check:
            self._next_queue_check = now + 0.5
            self._queue_length = broker.queue_length(self._route.queue)
        return self._queue_length

    # -- mirror ------------------------------------------------------------------------------

    def _mirror_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_mirror:
            self._next_mirror = now + self._policy.mirror_interval
            self._mirror()

    def _mirror(self) -> None:
        if not self._partitions:
            return
        self._consumer.mirror({key: p.position for key, p in self._partitions.items()})
        ends = ((self._consumer.end_offset(key), p.position) for key, p in self._partitions.items())
        metrics.BRIDGE_LAG.labels(self._route.handler).set(
            sum(max(0, end - position) for end, position in ends)
        )

    # -- the group ---------------------------------------------------------------------------

    def _on_assign(self, keys: Sequence[PartitionKey]) -> Mapping[PartitionKey, int]:
        positions = self._start_positions(keys)
        for key, position in positions.items():
            self._partitions[key] = Partition(
                key=key,
                topic_id=position.topic_id,
                position=position.next_offset,
                failed_at=position.failed_at,
                attempts=position.attempts,
                paused=position.paused,
            )
        log.info("partitions_assigned", handler=self._route.handler, partitions=len(keys))
        return {key: position.next_offset for key, position in positions.items()}

    def _start_positions(self, keys: Sequence[PartitionKey]) -> Mapping[PartitionKey, Position]:
        """Wait until the positions can be read and belong to the log that Kafka has; none if the
        bridge is stopped before. Without them nothing could be applied anyway."""
        while keys and not self._stop.is_set():
            close_old_connections()
            try:
                positions = self._read_positions(keys)
                if positions is not None:
                    return positions
            except (*DATABASE_AWAY, admin.KafkaUnavailable) as error:
                log.warning("assignment_waits", handler=self._route.handler, error=str(error))
            self._stop.wait(1.0)
        return {}

    def _read_positions(
        self, keys: Sequence[PartitionKey]
    ) -> Mapping[PartitionKey, Position] | None:
        topic = self._route.topic.name
        topic_id = admin.topic_ids([topic])[topic]
        positions = inbox.read_positions(self._route.handler, keys)
        missing = sorted(set(keys) - set(positions))
        if missing:
            raise PositionMissing(f"{self._route.handler}: {missing}. {PositionMissing.__doc__}")
        if {position.topic_id for position in positions.values()} <= {topic_id}:
            return positions
        log.error(
            "topic_made_anew",
            handler=self._route.handler,
            topic=topic,
            advice="manage.py sync_routes --recreated",
        )
        return None

    def _on_revoke(self, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            self._partitions.pop(key, None)
        log.info("partitions_revoked", handler=self._route.handler, partitions=len(keys))

    # -- positions that the log does not hold ------------------------------------------------

    def _on_lost_offset(self, key: PartitionKey, error: str) -> None:
        metrics.POSITION_LOST.labels(self._route.handler).inc()
        partition = self._partitions.get(key)
        if partition is None:
            return
        if not partition.lost:
            log.error("position_lost", handler=self._route.handler, partition=key[1], error=error)
        partition.lost, partition.refused = True, True
        partition.ask_again_at = time.monotonic() + self._policy.lost_retry

    def _ask_again(self) -> None:
        """The client fetches such a partition no more by itself, also when its log has grown again
        or was brought back: begin again until nobody objects for `lost_retry` seconds."""
        now = time.monotonic()
        for partition in self._partitions.values():
            if not partition.lost or now < partition.ask_again_at or not partition.fetching:
                continue
            partition.lost = partition.refused
            partition.refused = False
            partition.ask_again_at = now + self._policy.lost_retry
            if partition.lost:
                self._seek(partition, partition.read_next)
        metrics.OUT_OF_RANGE.labels(self._route.handler).set(
            sum(partition.lost for partition in self._partitions.values())
        )

    def _seek(self, partition: Partition, offset: int) -> bool:
        try:
            if partition.lost:
                self._consumer.begin_again(partition.key, offset)
                partition.fetching = True
            else:
                self._consumer.seek(partition.key, offset)
        except admin.KafkaUnavailable as error:
            log.warning("seek_waits", handler=self._route.handler, error=str(error))
            partition.refused = True  # to be asked again
            return False
        return True

    # -- a client that has gone quiet --------------------------------------------------------

    def _look_for_stall(self) -> None:
        stalled = self._stalls.look(self._behind_log) or self._unheld.look(self._left_alone)
        if stalled:
            metrics.CONSUMER_STALLED.labels(self._route.handler).inc()
            log.error(
                "consumer_stalled",
                handler=self._route.handler,
                partitions=[number for _, number in stalled],
            )
            self._consumer.close()
            self._partitions.clear()
            self._consumer = self._new_consumer()

    def _behind_log(self) -> Mapping[PartitionKey, int]:
        return {
            partition.key: partition.read_next
            for partition in self._partitions.values()
            if partition.waits_for_log
            and partition.read_next < self._consumer.log_end(partition.key, timeout=_LOOK_SECONDS)
        }

    def _left_alone(self) -> Mapping[PartitionKey, str]:
        """What nobody holds, this bridge included, whatever the coordinator believes of it: after a
        broker was killed, or a topic made anew while it joined. What others hold bears another mark
        at each look. Commits are asked because to ask who is in the group may end the process."""
        if len(self._partitions) >= self._route.topic.partitions:
            self._unheld.calm()
            return {}
        marks = self._consumer.marks(timeout=_LOOK_SECONDS)
        if self._partitions and not any(marks.get(key) for key in self._partitions):
            return {}  # a broker that keeps none (Tansu)
        return {key: mark for key, mark in marks.items() if key not in self._partitions}

    # -- positions that somebody else has moved ----------------------------------------------

    def _follow_positions(self) -> None:
        """Read on from where a replay or a repair has put a position; looked at once a second."""
        now = time.monotonic()
        if now < self._next_follow or not self._partitions:
            return
        self._next_follow = now + self._policy.mirror_interval
        positions = inbox.read_positions(self._route.handler, self._partitions)
        for key, position in positions.items():
            partition = self._partitions[key]
            partition.paused = position.paused
            ours = partition.position
            moved = (
                position.next_offset < ours if partition.flight else position.next_offset != ours
            )
            if moved:
                self._go_to(partition, position)

    def _go_to(self, partition: Partition, position: Position) -> None:
        if not self._seek(partition, position.next_offset):
            return
        log.info(
            "position_moved",
            handler=self._route.handler,
            topic=partition.key[0],
            partition=partition.key[1],
            old=partition.position,
            new=position.next_offset,
        )
        partition.clear()
        partition.refused = False
        partition.flight = partition.held = None
        partition.position = position.next_offset
        partition.failed_at = position.failed_at
        partition.attempts = position.attempts
