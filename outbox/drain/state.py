"""What the drain of one process remembers from one batch to the next; the next process starts with nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from outbox.conf import DrainPolicy
from outbox.lanes.floors import Floors
from outbox.lanes.pending import PendingEvent

__all__ = ["Backoff", "DrainState", "RefusedKeys"]

# Long enough that even a hundred refused keys leave most of the time to the others.
_REFUSED_PAUSE_MAX = 60.0


@dataclass(slots=True)
class Backoff:
    """How long Kafka, or one key, is left alone after a failure; `until` by the monotonic clock."""

    until: float = 0.0
    delay: float = 0.0

    @property
    def active(self) -> bool:
        return time.monotonic() < self.until

    def failed(self, policy: DrainPolicy) -> None:
        """Twice as long as the last time."""
        self.delay = min(max(self.delay * 2, policy.backoff_first), policy.backoff_max)
        self.until = time.monotonic() + self.delay

    def succeeded(self) -> None:
        self.delay = self.until = 0.0


@dataclass(slots=True)
class _Refused:
    """One key; `named` counts refusals of its first event in a row that Kafka gave a reason for."""

    pause: Backoff = field(default_factory=Backoff)
    named: int = 0


class RefusedKeys:
    """Keys, as (topic, key), whose first event Kafka has refused. Each is left out for a while,
    because its rows would fill the batches of its lane."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], _Refused] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self._keys

    def paused(self) -> list[tuple[str, str]]:
        """Those that were refused a moment ago."""
        # A copy: another thread of the same drain may add to it meanwhile.
        return [key for key, refused in self._keys.copy().items() if refused.pause.active]

    def remember(
        self,
        settled: Iterable[PendingEvent],
        refused: Iterable[tuple[PendingEvent, str]],
        policy: DrainPolicy,
    ) -> list[tuple[PendingEvent, str]]:
        """Record the outcome of a batch.

        Takes events with the reason, empty if Kafka named none. Returns those that were refused
        often enough to become dead letters; they are forgotten here."""
        if self._keys:
            for event in settled:
                self._keys.pop(event.place, None)
        longer = replace(policy, backoff_max=_REFUSED_PAUSE_MAX)
        for_good = []
        for event, reason in refused:
            key = self._keys.setdefault(event.place, _Refused())
            key.pause.failed(longer)
            key.named += bool(reason)
            if key.named >= policy.refusals:
                del self._keys[event.place]
                for_good.append((event, reason))
        return for_good


@dataclass(slots=True)
class DrainState:
    """Shared by the threads of a drain.

    floors     where each lane's pending rows begin
    refused    keys that Kafka refused
    kafka      how long Kafka itself is left alone
    connected  a producer has met Kafka, whose partitions and the table's lanes are as the code says
    sparse     the last batch was little, and all that its lanes had
    """

    floors: Floors = field(default_factory=Floors)
    refused: RefusedKeys = field(default_factory=RefusedKeys)
    kafka: Backoff = field(default_factory=Backoff)
    connected: bool = False
    sparse: bool = False

    def kafka_failed(self, policy: DrainPolicy) -> None:
        """Leave Kafka alone for a while, and look before the next claim whether it is there."""
        self.kafka.failed(policy)
        self.connected = False
