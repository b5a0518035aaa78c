"""What the reports of feeds and of notifications have alike: progress, thresholds, times as a row, JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from loadtest.feeds_tally import FeedsTally
from loadtest.histogram import PERCENTILES, Histogram
from loadtest.notifications_tally import NotificationsTally
from loadtest.sending import RunPlan
from loadtest.summary import finite, public
from loadtest.thresholds import Threshold

__all__ = ["TITLES", "RunReport", "each_tenth", "row_of_times"]

EVERY_SECONDS = 10
WIDTH = 32  # of the titles of rows
TITLES = f"{'milliseconds':<{WIDTH}}" + "".join(
    f"{at:>10}" for at in (*PERCENTILES, "max", "number")
)

Plan = TypeVar("Plan", bound=RunPlan)
Tally = TypeVar("Tally", FeedsTally, NotificationsTally)


def each_tenth(say: Callable[[str], None], line: Callable[[Tally], str]) -> Callable[[Tally], None]:
    """For what is called about once a second: says a line each tenth time."""
    calls = itertools.count(1)

    def show(tally: Tally) -> None:
        if (call := next(calls)) % EVERY_SECONDS == 0:
            say(f"{call:>5} s  {line(tally)}")

    return show


@dataclass(frozen=True, slots=True)
class RunReport(Generic[Plan, Tally]):
    """What was asked, what came, and what it may not have done."""

    plan: Plan
    tally: Tally
    machine: Mapping[str, Any]
    thresholds: Sequence[Threshold] = ()

    def crossed(self) -> list[Threshold]:
        values = self.tally.values()
        return [each for each in self.thresholds if each.crossed(values)]

    def threshold_lines(self) -> list[str]:
        """A line for each threshold: whether it was kept, and the value."""
        values, over = self.tally.values(), self.crossed()
        return [
            f"{'crossed' if each in over else 'kept'} {each.text} (it was {values[each.key]:,.4g})"
            for each in self.thresholds
        ]

    def sent_and_failed(self) -> str:
        """How fast it was, what was not sent, and failures by kind."""
        tally = self.tally
        kinds = "".join(f"; {kind} {count:,}" for kind, count in tally.errors.most_common())
        return (
            f"{tally.values()['rate']:,.1f}/s over {tally.seconds:.1f} s;"
            f" not sent {tally.not_sent:,}; errors {tally.errors.total():,}{kinds}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nan as null, header values that may be secrets left out."""
        tally, plan = self.tally, self.plan
        return {
            "configuration": asdict(plan) | {"headers": public(plan.headers)},
            "machine": dict(self.machine),
            "seconds": round(tally.seconds, 3),
            "values": {name: finite(value) for name, value in tally.values().items()},
            "errors_by_kind": dict(tally.errors.most_common()),
        }


def row_of_times(title: str, times: Histogram) -> str:
    """The percentiles of `times` (microseconds), the longest and their number; `-` where there is none."""
    values = [times.percentile(percent) / 1000 for percent in PERCENTILES.values()]
    values.append(times.max / 1000 if times.count else math.nan)
    cells = "".join(f"{'-' if math.isnan(value) else f'{value:,.1f}':>10}" for value in values)
    return f"{title:<{WIDTH}}{cells}{times.count:>10,}"
