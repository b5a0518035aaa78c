"""Notices that the Kafka client of a bridge has stopped fetching although the log grows, and replaces the client.
Three bugs cause that:

A broker that was frozen or lost its leadership for a moment may forget a member of a group. The client
believes that it still belongs: it fetches nothing and reports nothing. This happens with librdkafka's new
group protocol and Apache Kafka 4.1, in about one of fifty freezes.
With the classic protocol, a member that joins while its topic is being recreated may be assigned nothing, and
never asks again (librdkafka 2.16, Tansu).
After a broker was killed, its coordinator may disagree with its log and give the only member of a group half of
the partitions, for good (Kafka 4.1).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog

from outbox import metrics
from outbox.bridge.group import Group
from outbox.conf import BridgePolicy
from outbox.declaration import Route
from outbox.kafka.admin import KafkaUnavailable
from outbox.topics import PartitionKey

__all__ = ["ClientWatch", "StallWatch"]

_LOOK_SECONDS = 1.0  # for the broker's answer
_LONGEST = 300.0  # seconds between two looks, if replacing the client does not help

log = structlog.get_logger("outbox.bridge")


class StallWatch:
    """Compares two looks, `interval` seconds apart, at the partitions that wait for messages."""

    def __init__(self, interval: float) -> None:
        self._interval = self._pause = interval
        self._next = time.monotonic() + interval
        self._waiting: Mapping[PartitionKey, int | str] = {}

    def reset(self) -> None:
        """Begin anew, because the client works: a message came, for example."""
        self._pause = self._interval

    def forget(self) -> None:
        """Forget the last look: the next one is not compared with it."""
        self._waiting = {}

    def check(self, waiting: Callable[[], Mapping[PartitionKey, int | str]]) -> list[PartitionKey]:
        """The partitions whose value is the same as at the last look; none if it is not time for a look.

        `waiting` returns, for each partition with unread messages, a value that changes as soon as the
        partition makes progress; it raises KafkaUnavailable while Kafka is unavailable. Such a look is not
        compared, and neither is a look that comes much too late, because the other bridges may have been
        delayed as well. After each find the interval doubles, until `reset` or a change: the end of a log
        may hold only markers, which no client ever receives.
        """
        late = time.monotonic() - self._next
        if late < 0:
            return []
        try:
            found = waiting()
        except KafkaUnavailable:
            found = {}
        before = {} if late > self._pause else self._waiting
        stalled = sorted(key for key, said in found.items() if before.get(key) == said)
        if stalled:
            self._pause = min(2 * self._pause, _LONGEST)
        elif before.keys() & found.keys():
            self.reset()
        self._waiting = {} if stalled else found
        self._next = time.monotonic() + self._pause
        return stalled


class ClientWatch:
    """Makes two checks of one bridge's client: whether it fetches its partitions, and whether there are
    partitions that no bridge holds."""

    def __init__(self, route: Route, policy: BridgePolicy, group: Group) -> None:
        self._route = route
        self._group = group
        self.stalls = StallWatch(policy.stall_after)
        self.unheld = StallWatch(policy.unheld_after)
        metrics.CONSUMER_STALLED.labels(route.handler)

    def replace_stalled_client(self) -> None:
        """If a check finds the same partitions waiting twice in a row, join the group again."""
        stalled = self.stalls.check(self._behind_log) or self.unheld.check(self.left_alone)
        if stalled:
            metrics.CONSUMER_STALLED.labels(self._route.handler).inc()
            log.error(
                "consumer_stalled",
                handler=self._route.handler,
                partitions=[number for _, number in stalled],
            )
            self._group.join_again()

    def _behind_log(self) -> Mapping[PartitionKey, int]:
        return {
            partition.key: partition.read_next
            for partition in self._group.partitions.values()
            if partition.waits_for_log
            and partition.read_next
            < self._group.client.log_end(partition.key, timeout=_LOOK_SECONDS)
        }

    def left_alone(self) -> Mapping[PartitionKey, str]:
        """Partitions that this bridge does not hold, with the mark of their last commit.

        The owner of a partition commits with a new mark every second. A partition whose mark is the same
        at two looks has no owner, whatever the coordinator believes. That happens after a broker was
        killed, and after a topic was recreated while a member joined. The check reads commits because
        librdkafka may end the process when it is asked for the group's members.
        """
        held = self._group.partitions.keys() | self._group.unread
        if len(held) >= self._route.topic.partitions:
            self.unheld.reset()
            return {}
        marks = self._group.client.marks(timeout=_LOOK_SECONDS)
        if held and not any(marks.get(key) for key in held):
            return {}  # a broker that keeps none (Tansu)
        return {key: mark for key, mark in marks.items() if key not in held}
