"""What came of the requests of a run, in memory that does not grow with them but for their ids."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from loadtest.histogram import Histogram, milliseconds
from loadtest.sending import RequestTally

__all__ = ["LoadTally", "LoadTimeline", "Slot"]

SLOTS = 600
SLOT_BITS = 6  # 3 % are exact enough for a line in a chart
MICRO = 1_000_000


@dataclass(slots=True)
class Slot:
    """One span of the run. Latencies and failures belong to when a request was due, `answered` to
    when its answer came."""

    latency: Histogram = field(default_factory=lambda: Histogram(SLOT_BITS))
    due: int = 0
    answered: int = 0
    errors: int = 0
    not_sent: int = 0

    def add(self, other: Slot) -> None:
        self.latency.add(other.latency)
        self.due += other.due
        self.answered += other.answered
        self.errors += other.errors
        self.not_sent += other.not_sent


class LoadTimeline:
    """Slots of one second; when there are more than 600, of two, of four, and so on."""

    def __init__(self) -> None:
        self.width = 1.0  # seconds
        self.slots: list[Slot] = []

    def at(self, seconds: float) -> Slot:
        """The slot of a moment, counted from the start."""
        number = int(max(seconds, 0.0) / self.width)
        while number >= SLOTS:
            self._double()
            number = int(seconds / self.width)
        while len(self.slots) <= number:
            self.slots.append(Slot())
        return self.slots[number]

    def _double(self) -> None:
        for even, odd in zip(self.slots[::2], self.slots[1::2], strict=False):
            even.add(odd)
        self.slots = self.slots[::2]
        self.width *= 2


class LoadTally(RequestTally):
    """Counts and times of one run. All times in microseconds.

    latency   from the moment a request was due to its whole answer, good answers only
    service   from sending it to its whole answer, the same ones
    lag       from the moment it was due to sending it: the generator's own lateness
    accepted  answers 200 or 201 with an order id; `ids` are theirs, 16 bytes each, and
              `answered_at` their moments in seconds since the epoch
    errors    every other outcome by its kind: a word of `Failed`, "status 503", "no order id"
    """

    def __init__(self, *, planned_seconds: float) -> None:
        super().__init__()
        self.seconds = (
            planned_seconds  # more, if the generator was too slow; less after an early end
        )
        self.latency, self.service, self.lag = Histogram(), Histogram(), Histogram()
        self.accepted = 0
        self.ids = bytearray()
        self.answered_at = array("d")
        self.timeline = LoadTimeline()

    def end_early(self) -> None:
        """Nothing is sent from now on."""
        self.ended_early = True
        self.seconds = time.perf_counter() - self.begin

    @property
    def sent(self) -> int:
        """Requests that went out."""
        return self.due - self.not_sent

    @property
    def rate(self) -> float:
        """Accepted orders a second of sending."""
        return self.accepted / self.seconds

    def values(self) -> dict[str, float]:
        return {
            **milliseconds(self.latency),
            **milliseconds(self.service, "service_"),
            **milliseconds(self.lag, "lag_"),
            **self.shares(),
            "accepted": self.accepted,
            "rate": self.rate,
        }

    def note_not_sent(self, intended: float) -> None:
        super().note_not_sent(intended)
        slot = self.timeline.at(intended - self.begin)
        slot.due += 1
        slot.not_sent += 1

    def note_sent(self, intended: float, sent: float) -> None:
        """A request goes out; both moments on time.perf_counter, as everywhere here."""
        self.due += 1
        self.under_way += 1
        self.timeline.at(intended - self.begin).due += 1
        self.lag.record(int((sent - intended) * MICRO))
        self.seconds = max(self.seconds, sent - self.begin)

    def note_accepted(self, intended: float, sent: float, order_id: UUID) -> None:
        """Its answer is here, and it is good."""
        now = time.perf_counter()
        latency = int((now - intended) * MICRO)
        self.under_way -= 1
        self.accepted += 1
        self.latency.record(latency)
        self.service.record(int((now - sent) * MICRO))
        self.timeline.at(intended - self.begin).latency.record(latency)
        self.timeline.at(now - self.begin).answered += 1
        self.ids += order_id.bytes
        self.answered_at.append(self.epoch + now)

    def note_error(self, intended: float, kind: str) -> None:
        """It has failed, or was answered with something else."""
        self.under_way -= 1
        self.errors[kind] += 1
        self.timeline.at(intended - self.begin).errors += 1

    def batches(self, size: int = 20_000) -> Iterator[tuple[Sequence[UUID], Sequence[float]]]:
        """The accepted orders: ids, and when each was answered."""
        for start in range(0, self.accepted, size):
            ids = bytes(self.ids[16 * start : 16 * (start + size)])
            yield (
                [UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)],
                self.answered_at[start : start + size],
            )
