"""Noticing that the Kafka client has gone quiet although the log goes on.

A broker that was frozen or lost its leadership for a moment may forget a member of a group whose
client believes that it still belongs: nothing is fetched any more, and nothing is said. Seen with
librdkafka's new group protocol and Apache Kafka 4.1, about once in fifty freezes.
With the classic protocol a member that joined while its topic was being made anew was assigned
nothing, and never asked again (librdkafka 2.16, Tansu). And after a broker was killed, its
coordinator out of step with its own log, the one member of a group was given half of the partitions,
for good (Kafka 4.1).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from outbox.kafka.admin import KafkaUnavailable
from outbox.topics import PartitionKey

__all__ = ["StallWatch"]

_LONGEST = 300.0  # seconds between looks, once they have led to nothing


class StallWatch:
    """Compares two looks, `interval` seconds apart, at the partitions that wait for something."""

    def __init__(self, interval: float) -> None:
        self._interval = self._pause = interval
        self._next = time.monotonic() + interval
        self._waiting: Mapping[PartitionKey, int | str] = {}

    def reset(self) -> None:
        """All is well: something came, for example."""
        self._pause = self._interval

    def forget(self) -> None:
        """The last look is not to be compared with."""
        self._waiting = {}

    def check(self, waiting: Callable[[], Mapping[PartitionKey, int | str]]) -> list[PartitionKey]:
        """If it is time to: the partitions of which the same is said as at the last look.

        `waiting` gives of each partition that waits what changes when it no longer does; where Kafka
        is away it raises KafkaUnavailable, and there is nothing to compare. Nor is there in a look
        that comes much too late: who was held up was perhaps not alone. Each time that something is
        found the next look is twice as far off, until `reset` or a change: what lies at the end of a
        log may be nothing that a client is ever given.
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
