"""The bridge of one handler: poll > chunk > trigger > position advanced > commit offset.

The bridge remembers nothing that matters. Positions say what is applied; a chunk whose position
has not moved when its deadline passes is sent again (guarantees.md#r10), and that one mechanism covers a
lost message, a killed worker, a flushed Redis and a failing effect alike. Offsets committed to
Kafka only mirror the positions.

group.py holds the Kafka client and the partitions it was assigned, dispatch.py sends chunks,
confirm.py compares them with the positions, client_watch.py notices a client that stands still.
"""

from __future__ import annotations

import threading
import time

import structlog
from django.db import close_old_connections

from outbox import metrics
from outbox.bridge.client_watch import ClientWatch
from outbox.bridge.confirm import Confirm
from outbox.bridge.dispatch import Dispatch
from outbox.bridge.group import Group
from outbox.conf import BRIDGE, BridgePolicy
from outbox.database import patience
from outbox.database.errors import DATABASE_AWAY
from outbox.declaration import Route

__all__ = ["Bridge"]

log = structlog.get_logger("outbox.bridge")


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
        self._next_mirror = self._database_again = 0.0
        self._little_waits = True  # False: there is a backlog
        self.group = Group(route, stop=stop, policy=policy)
        self.watch = ClientWatch(route, policy, self.group)
        self._partitions = self.group.partitions
        self._confirm = Confirm(route, policy, self.group)
        self._dispatch = Dispatch(
            route, policy, self._partitions, on_sent=self._confirm.expect_answer
        )

    @property
    def reads_all(self) -> bool:
        """Whether every partition that it holds has a position to read from."""
        return not self.group.unread

    def run(self) -> None:
        """Work until `stop` is set. Then wait for chunks in flight, mirror the positions and leave the group."""
        with patience.within(each=self._policy.database_wait):
            try:
                while not self._stop.is_set():
                    self._cycle(take_more=True)
                give_up = time.monotonic() + self._policy.stop_timeout
                partitions = self._partitions.values()
                while any(p.flight for p in partitions) and time.monotonic() < give_up:
                    self._cycle(take_more=False)
                self._mirror()
            finally:
                self.group.client.close()
                self._partitions.clear()
                self._dispatch.measure_waiting()
                log.info("bridge_stopped", handler=self._route.handler)

    def _cycle(self, *, take_more: bool) -> None:
        self._receive()
        now = time.monotonic()
        if (
            now >= self._next_mirror
        ):  # also without a database: the commit shows that this bridge lives
            self._next_mirror = now + self._policy.mirror_interval
            self._mirror()
        if now < self._database_again:
            return
        try:
            self._confirm.compare_flights()
            self._confirm.follow_positions()
            if take_more:
                self._dispatch.send_what_is_due()
        except DATABASE_AWAY as error:
            log.warning(
                "bridge_database_unavailable", handler=self._route.handler, error=str(error)
            )
            close_old_connections()
            self._database_again = time.monotonic() + 1.0
            self.watch.unheld.forget()  # the owners of the other partitions may wait for the database, too

    def _receive(self) -> None:
        """Receive messages. A poll costs as much as sending a few events, so while nothing may be sent the
        client only gathers. After a pause, when a drain's batch may be arriving, the bridge waits a moment
        for the whole batch."""
        interval, policy = self._dispatch.interval, self._policy
        rest = interval.left(time.monotonic())
        patience = policy.confirm_interval if self._partitions.are_busy() else policy.poll_timeout
        if rest and self._little_waits:
            time.sleep(rest)
            self._take(timeout=0.0)
        elif (
            self._take(timeout=patience)
            and self._little_waits
            and interval.is_steady(time.monotonic())
        ):
            time.sleep(policy.gather)
            self._take(timeout=0.0)
        self._regulate_fetching()
        self.group.ask_again()
        self.watch.replace_stalled_client()

    def _take(self, *, timeout: float) -> int:
        """Put messages into the buffers, waiting up to `timeout` seconds for them. Returns how many came."""
        limit = self._policy.chunk_events
        messages = self.group.client.receive(
            limit=limit, limit_bytes=self._policy.buffer_bytes, timeout=timeout
        )
        for message in messages:
            partition = self._partitions.get((message.topic, message.partition))
            if partition is None:
                continue
            partition.append(message)
            self.watch.stalls.reset()
        waiting = sum(len(partition.buffer) for partition in self._partitions.values())
        size = sum(partition.buffered_bytes for partition in self._partitions.values())
        self._little_waits = max(waiting, len(messages)) < limit and size < self._policy.chunk_bytes
        return len(messages)

    def _regulate_fetching(self) -> None:
        """Keep the buffers bounded: the partitions of a slow handler are paused while polling continues."""
        client = self.group.client
        for partition in self._partitions.values():
            wanted = (
                len(partition.buffer) < self._policy.buffer_events
                and partition.buffered_bytes < self._policy.buffer_bytes
            )
            if wanted != partition.fetching:
                (client.resume if wanted else client.pause)([partition.key])
                partition.fetching = wanted

    def _mirror(self) -> None:
        """Commit the positions to Kafka, and measure how far they are behind the log."""
        self._dispatch.measure_waiting()
        client = self.group.client
        positions = {key: p.position for key, p in self._partitions.items()}
        held = positions | dict.fromkeys(self.group.unread, 0)
        if not held:
            return
        client.mirror(held)
        ends = ((client.end_offset(key), position) for key, position in positions.items())
        metrics.BRIDGE_LAG.labels(self._route.handler).set(
            sum(max(0, end - position) for end, position in ends)
        )
