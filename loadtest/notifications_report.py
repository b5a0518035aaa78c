"""A run of notifications as words, as JSON and against thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.histogram import PERCENTILES, Histogram
from loadtest.notifications import NotificationsPlan
from loadtest.notifications_tally import NotificationsTally
from loadtest.summary import finite, public
from loadtest.thresholds import Threshold
from loadtest.words import crossed, row_of_times, threshold_lines, titles_of_times

__all__ = ["NotificationsProgress", "NotificationsReport"]

EVERY_SECONDS = 10
WIDTH = 32  # of the titles of rows


class NotificationsProgress:
    """A line each tenth second."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._calls = 0

    def show(self, tally: NotificationsTally) -> None:
        """Called about once a second."""
        self._calls += 1
        if self._calls % EVERY_SECONDS == 0:
            self._say(
                f"{self._calls:>5} s  {tally.accepted:,} notifications accepted,"
                f" {tally.errors.total():,} errors"
            )


@dataclass(frozen=True, slots=True)
class NotificationsReport:
    """What was asked, what came, and what it may not have done."""

    plan: NotificationsPlan
    tally: NotificationsTally
    machine: Mapping[str, Any]
    thresholds: Sequence[Threshold] = ()

    def crossed(self) -> list[Threshold]:
        """The thresholds the run crossed."""
        return crossed(self.thresholds, self.tally.values())

    def in_words(self) -> str:
        """For people."""
        tally, values = self.tally, self.tally.values()
        kinds = "".join(f"; {kind} {count:,}" for kind, count in tally.errors.most_common())
        ends = ", ".join(f"{count:,} {status}" for status, count in tally.ends.most_common())
        lines = [
            titles_of_times(PERCENTILES, width=WIDTH),
            _row("request, from when it was due", tally.latency),
            _row("answer until the provider's call", tally.effect),
            f"{tally.accepted:,} notifications accepted in {tally.requests:,} of {tally.due:,}"
            f" requests, {values['rate']:,.1f}/s over {tally.seconds:.1f} s;"
            f" not sent {tally.not_sent:,}; errors {tally.errors.total():,}{kinds}",
            f"after {tally.waited:.1f} s: {ends or 'not looked for'}; lost {_count(tally.lost)}",
        ]
        if not math.isnan(tally.unseen):
            lines.append(
                f"provider: {tally.calls:,} calls, {tally.refused:,} answered 503,"
                f" {_count(tally.repeated)} repeated; delivered and never called {_count(tally.unseen)}"
            )
        lines += threshold_lines(self.thresholds, values)
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nan as null, header values that may be secrets left out."""
        tally, plan = self.tally, self.plan
        return {
            "configuration": asdict(plan) | {"headers": public(plan.headers)},
            "machine": dict(self.machine),
            "seconds": round(tally.seconds, 3),
            "values": {name: finite(value) for name, value in tally.values().items()},
            "requests": tally.requests,
            "errors_by_kind": dict(tally.errors.most_common()),
            "ends": dict(tally.ends.most_common()),
            "provider_calls": tally.calls,
            "provider_refused": tally.refused,
        }


def _count(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:,.0f}"


def _row(title: str, times: Histogram) -> str:
    return row_of_times(title, times, PERCENTILES.values(), width=WIDTH)
