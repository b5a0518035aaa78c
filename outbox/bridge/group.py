"""The bridge as a member of its consumer group: which partitions it holds, and from which offset
it reads them. Offsets always come from the positions, never from Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence

import structlog
from django.db import close_old_connections

from outbox import metrics
from outbox.bridge.partition import Partition, Partitions
from outbox.bridge.unread import advice
from outbox.conf import BridgePolicy
from outbox.database.errors import DATABASE_AWAY
from outbox.declaration import Route
from outbox.inbox.positions import Position, read_positions
from outbox.kafka import admin
from outbox.kafka.consumer import TopicConsumer
from outbox.topics import PartitionKey

__all__ = ["Group"]

_ASSIGN_RETRY_SECONDS = 1.0

log = structlog.get_logger("outbox.bridge")


class Group:
    """Holds the Kafka client of one bridge and keeps `partitions` and `unread` as assigned.

    Partitions with a position are in `partitions`, those without one in `unread`.
    """

    def __init__(self, route: Route, *, stop: threading.Event, policy: BridgePolicy) -> None:
        self._route = route
        self._stop = stop
        self._policy = policy
        self.partitions = Partitions()
        self.unread: frozenset[PartitionKey] = frozenset()  # also read by the thread of /health
        # Exported as 0, so that the first loss is an increase.
        metrics.POSITION_LOST.labels(route.handler)
        self.client = self._join()

    def _join(self) -> TopicConsumer:
        return TopicConsumer(
            group=self._route.handler,
            topic=self._route.topic.name,
            on_assign=self._on_assign,
            on_revoke=self.on_revoke,
            on_lost_offset=self._on_lost_offset,
            on_end=self._on_end,
        )

    def join_again(self) -> None:
        """Leave the group and join it with a new client, which is assigned its partitions anew."""
        self.client.close()
        self.partitions.clear()
        self.unread = frozenset()
        self.client = self._join()

    # -- assigned and revoked ----------------------------------------------------------------

    def _on_assign(self, keys: Sequence[PartitionKey]) -> Mapping[PartitionKey, int]:
        positions = self._start_positions(keys)
        self.partitions.add(positions)
        if not self._stop.is_set():
            self._leave_unread(set(keys) - set(positions))
        log.info("partitions_assigned", handler=self._route.handler, partitions=len(keys))
        return {key: position.next_offset for key, position in positions.items()}

    def _leave_unread(self, keys: Collection[PartitionKey]) -> None:
        """Hold partitions without a position; the log line says what to do."""
        if not keys:
            return
        self.unread |= set(keys)
        numbers = sorted(number for _, number in keys)
        log.error(
            "partitions_unread",
            handler=self._route.handler,
            topic=self._route.topic.name,
            partitions=numbers,
            advice=advice(self._route, numbers),
        )

    def _start_positions(self, keys: Sequence[PartitionKey]) -> Mapping[PartitionKey, Position]:
        """Wait until the positions can be read and belong to Kafka's log. Returns none if the bridge is
        stopped before. Without positions nothing could be applied."""
        while keys and not self._stop.is_set():
            close_old_connections()
            try:
                positions = self._read_positions(keys)
                if positions is not None:
                    return positions
            except (*DATABASE_AWAY, admin.KafkaUnavailable) as error:
                log.warning("assignment_waits", handler=self._route.handler, error=str(error))
            self._stop.wait(_ASSIGN_RETRY_SECONDS)
        return {}

    def _read_positions(
        self, keys: Sequence[PartitionKey]
    ) -> Mapping[PartitionKey, Position] | None:
        """The positions, or None if the topic was recreated: its offsets mean nothing then."""
        topic = self._route.topic.name
        topic_id = admin.topic_ids([topic])[topic]
        positions = read_positions(self._route.handler, keys)
        if {position.topic_id for position in positions.values()} <= {topic_id}:
            return positions
        log.error(
            "topic_made_anew",
            handler=self._route.handler,
            topic=topic,
            advice="manage.py sync_routes --recreated",
        )
        return None

    def on_revoke(self, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            self.partitions.pop(key, None)
        self.unread -= set(keys)
        log.info("partitions_revoked", handler=self._route.handler, partitions=len(keys))

    def take_in_added(self) -> None:
        """Begin to read partitions whose positions were written since they were assigned."""
        found = read_positions(self._route.handler, self.unread) if self.unread else {}
        try:
            positions = self._read_positions(list(found)) if found else None
            for key, position in (positions or {}).items():
                self.client.begin_again(key, position.next_offset)
        except admin.KafkaUnavailable as error:
            log.warning("assignment_waits", handler=self._route.handler, error=str(error))
            return
        if positions:
            self.partitions.add(positions)
            self.unread -= set(positions)
            log.info("partitions_taken_in", handler=self._route.handler, partitions=len(positions))

    # -- what to read next -------------------------------------------------------------------

    def go_to(self, partition: Partition, position: Position) -> None:
        """Drop the buffered messages of a partition and read on from a position that another program moved."""
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
        partition.sent_early = False
        partition.position = position.next_offset
        partition.failed_at = position.failed_at
        partition.attempts = position.attempts

    def _seek(self, partition: Partition, offset: int) -> bool:
        try:
            if partition.lost:
                self.client.begin_again(partition.key, offset)
                partition.fetching = True
            else:
                self.client.seek(partition.key, offset)
        except admin.KafkaUnavailable as error:
            log.warning("seek_waits", handler=self._route.handler, error=str(error))
            partition.refused = True  # so that `ask_again` tries once more
            return False
        return True

    def _on_end(self, key: PartitionKey, offset: int) -> None:
        if partition := self.partitions.get(key):
            partition.end = offset

    def _on_lost_offset(self, key: PartitionKey, error: str) -> None:
        metrics.POSITION_LOST.labels(self._route.handler).inc()
        partition = self.partitions.get(key)
        if partition is None:
            return
        if not partition.lost:
            log.error("position_lost", handler=self._route.handler, partition=key[1], error=error)
        partition.lost, partition.refused = True, True
        partition.ask_again_at = time.monotonic() + self._policy.lost_retry

    def ask_again(self) -> None:
        """Ask again for offsets that the log did not hold. The client stops fetching such a partition, even
        if its log grows again or is restored. So fetching is started again until Kafka has not refused for
        `lost_retry` seconds."""
        now = time.monotonic()
        for partition in self.partitions.values():
            if not partition.lost or now < partition.ask_again_at or not partition.fetching:
                continue
            partition.lost = partition.refused
            partition.refused = False
            partition.ask_again_at = now + self._policy.lost_retry
            if partition.lost:
                self._seek(partition, partition.read_next)
        metrics.OUT_OF_RANGE.labels(self._route.handler).set(
            sum(partition.lost for partition in self.partitions.values())
        )
