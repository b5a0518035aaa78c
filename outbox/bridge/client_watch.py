"""Notices that the Kafka client of a bridge has stopped fetching, and replaces the client."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from outbox import metrics
from outbox.bridge.group import Group
from outbox.bridge.stall_watch import StallWatch
from outbox.conf import BridgePolicy
from outbox.declaration import Route
from outbox.topics import PartitionKey

__all__ = ["ClientWatch"]

_LOOK_SECONDS = 1.0  # for the broker's answer

log = structlog.get_logger("outbox.bridge")


class ClientWatch:
    """Makes two checks of one bridge's client: whether it fetches its partitions, and whether there are
    partitions that no bridge holds. stall_watch.py names the bugs of client and broker behind both."""

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
