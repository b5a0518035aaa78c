"""What a run of notifications is asked for, and what came of it: as figures, as words and as JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from loadtest.histogram import Histogram, milliseconds
from loadtest.provider import Arrivals
from loadtest.sending import RequestTally, RunPlan
from loadtest.words import RunReport, row_of_times

__all__ = [
    "METRICS_OF_NOTIFICATIONS",
    "NotificationsPlan",
    "NotificationsReport",
    "NotificationsTally",
    "progress_of_notifications",
]

MICRO = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationsPlan(RunPlan):
    """batch   notifications in a request; 1: each by itself
    settle  seconds for all of them to be finished
    """

    batch: int = 1
    settle: float = 60.0


class NotificationsTally(RequestTally):
    """Counts and times of one run, in microseconds.

    latency      of requests, from the moment one was due to its good answer
    effect       from the answer to the provider's first call, where the run has a provider
    accepted_at  id -> when its answer was here, in seconds since the epoch
    ends         status at the end -> how many; also "missing" and "unchecked"
    delivered    those that are so in the end, as the system says
    unseen       of these, those that never came to the provider
    repeated     calls for one that had come before and was not answered 503
    """

    def __init__(self) -> None:
        super().__init__()
        self.latency, self.effect = Histogram(), Histogram()
        self.ends: Counter[str] = Counter()
        self.accepted_at: dict[UUID, float] = {}
        self.requests = 0
        self.delivered: set[UUID] = set()
        self.calls = self.refused = 0
        self.unseen = self.repeated = math.nan
        self.waited = 0.0

    def note_accepted(self, intended: float, ids: Sequence[UUID]) -> None:
        """A good answer is here."""
        now = time.perf_counter()
        self.requests += 1
        self.latency.record(int((now - intended) * MICRO))
        self.accepted_at.update(dict.fromkeys(ids, self.epoch + now))

    def note_arrivals(self, arrivals: Arrivals) -> None:
        """What the provider has seen of what was accepted."""
        self.repeated = 0
        for id_, accepted_at in self.accepted_at.items():
            if moments := arrivals.at.get(id_):
                calls, refused = len(moments), arrivals.refused[id_]
                self.calls += calls
                self.refused += refused
                self.repeated += max(0, calls - 1 - refused)
                # Where it was called before the answer was here, that is no time.
                self.effect.record(int((moments[0] - accepted_at) * MICRO))
        self.unseen = len(self.delivered - arrivals.at.keys())

    def note_end(self, id_: UUID, status: str) -> None:
        self.ends[status] += 1
        if status == "delivered":
            self.delivered.add(id_)

    @property
    def accepted(self) -> int:
        """Notifications, each once."""
        return len(self.accepted_at)

    @property
    def lost(self) -> float:
        """Accepted, and not finished in the end or not there; nan if that is not known of all."""
        if self.ends["unchecked"] or self.ends.total() < self.accepted:
            return math.nan
        finished = self.ends["delivered"] + self.ends["failed"] + self.ends["cancelled"]
        return self.ends.total() - finished

    def values(self) -> dict[str, float]:
        """Every metric of a threshold: milliseconds, counts, notifications a second."""
        return {
            **milliseconds(self.latency),
            **milliseconds(self.effect, "e2e_"),
            **self.shares(),
            "accepted": self.accepted,
            "rate": self.accepted / self.seconds if self.seconds else 0.0,
            "lost": self.lost,
            "missing": self.ends["missing"],
            "without_effect": self.unseen,
            "duplicates": self.repeated,
        }


METRICS_OF_NOTIFICATIONS = tuple(NotificationsTally().values())


def progress_of_notifications(tally: NotificationsTally) -> str:
    return f"{tally.accepted:,} notifications accepted, {tally.errors.total():,} errors"


class NotificationsReport(RunReport[NotificationsPlan, NotificationsTally]):
    """Also what became of each, and what came to the provider."""

    def lines(self) -> list[str]:
        tally = self.tally
        ends = ", ".join(f"{count:,} {status}" for status, count in tally.ends.most_common())
        lines = [
            row_of_times("request, from when it was due", tally.latency),
            row_of_times("answer until the provider's call", tally.effect),
            f"{tally.accepted:,} notifications accepted in {tally.requests:,} of {tally.due:,}"
            f" requests, {self.sent_and_failed()}",
            f"after {tally.waited:.1f} s: {ends or 'not looked for'}; lost {_count(tally.lost)}",
        ]
        if not math.isnan(tally.unseen):
            lines.append(
                f"provider: {tally.calls:,} calls, {tally.refused:,} answered 503,"
                f" {_count(tally.repeated)} repeated; delivered and never called {_count(tally.unseen)}"
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        tally = self.tally
        return {
            **super().as_dict(),
            "requests": tally.requests,
            "ends": dict(tally.ends.most_common()),
            "provider_calls": tally.calls,
            "provider_refused": tally.refused,
        }


def _count(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:,.0f}"
