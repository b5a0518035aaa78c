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
from collections.abc import Mapping

from outbox.topics import PartitionKey

__all__ = ["StallWatch"]

_LONGEST = 300.0  # seconds between looks, once they have led to nothing


class StallWatch:
    """Compares two looks, `interval` seconds apart, at the partitions that wait for the log."""

    def __init__(self, interval: float) -> None:
        self._interval = self._pause = interval
        self._next = time.monotonic() + interval
        self._behind: dict[PartitionKey, int] = {}

    def is_due(self) -> bool:
        """Whether it is time for a look."""
        return time.monotonic() >= self._next

    def received(self) -> None:
        """Something came: the client is alive."""
        self._pause = self._interval

    def stalled(self, behind: Mapping[PartitionKey, int]) -> list[PartitionKey]:
        """The partitions that stood at the same offset at the last look, too.

        `behind`: what is to be read next of each partition whose log has more. Each time that
        something is found the next look is twice as far off, until a message comes: what lies at
        the end of a log may be nothing that a client is ever given.
        """
        found = sorted(key for key, offset in behind.items() if self._behind.get(key) == offset)
        if found:
            self._pause = min(2 * self._pause, _LONGEST)
        self._behind = {} if found else dict(behind)
        self._next = time.monotonic() + self._pause
        return found
