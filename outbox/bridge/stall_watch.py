"""Notices that the Kafka client has stopped fetching although the log grows. Three bugs cause that:

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

from outbox.kafka.admin import KafkaUnavailable
from outbox.topics import PartitionKey

__all__ = ["StallWatch"]

_LONGEST = 300.0  # seconds between two looks, if replacing the client does not help


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
