"""What all reports have alike: progress, thresholds, times as a row, JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from loadtest.histogram import PERCENTILES, Histogram
from loadtest.sending import RequestTally, RunPlan
from loadtest.thresholds import Threshold

__all__ = ["RunReport", "finite", "in_ms", "progress", "row_of_times"]

SPARSE_SECONDS = 10
SECRETS = ("authorization", "api-key", "cookie")
WIDTH = 32  # of the titles of rows
TITLES = f"{'milliseconds':<{WIDTH}}" + "".join(
    f"{at:>10}" for at in (*PERCENTILES, "max", "number")
)

Plan = TypeVar("Plan", bound=RunPlan)
Tally = TypeVar("Tally", bound=RequestTally)


def progress(
    say: Callable[[str], None], line: Callable[[Tally], str], *, terminal: bool
) -> Callable[[Tally], None]:
    """For what is called about once a second: says a line each second on a terminal, each tenth
    elsewhere, as a log is read later."""
    calls, every = itertools.count(1), 1 if terminal else SPARSE_SECONDS

    def show(tally: Tally) -> None:
        if (call := next(calls)) % every == 0:
            say(f"{call:>5} s  {line(tally)}")

    return show


@dataclass(frozen=True, slots=True)
class RunReport(Generic[Plan, Tally]):
    """What was asked, what came, and what it may not have done."""

    plan: Plan
    tally: Tally
    machine: Mapping[str, Any]
    thresholds: Sequence[Threshold] = ()

    def values(self) -> dict[str, float]:
        """Every metric of a threshold; milliseconds, counts, requests a second. nan: not known."""
        return self.tally.values()

    def lines(self) -> list[str]:
        """What is special to it, for a terminal; the first ones are rows of times."""
        raise NotImplementedError

    def in_words(self) -> str:
        return "\n".join([TITLES, *self.lines(), *self._threshold_lines()])

    def crossed(self) -> list[Threshold]:
        values = self.values()
        return [each for each in self.thresholds if each.crossed(values)]

    def _threshold_lines(self) -> list[str]:
        values, over = self.values(), self.crossed()
        return [
            f"{'crossed' if each in over else 'kept'} {each.text} (it was {values[each.key]:,.4g})"
            for each in self.thresholds
        ]

    def sent_and_failed(self) -> str:
        """How fast it was, what was not sent, and failures by kind."""
        tally = self.tally
        kinds = "".join(f"; {kind} {count:,}" for kind, count in tally.errors.most_common())
        return (
            f"{self.values()['rate']:,.1f}/s over {tally.seconds:.1f} s;"
            f" not sent {tally.not_sent:,}; errors {tally.errors.total():,}{kinds}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nan as null, header values that may be secrets left out."""
        tally, plan = self.tally, self.plan
        return {
            "configuration": asdict(plan) | {"headers": _public(plan.headers)},
            "machine": dict(self.machine),
            "seconds": round(tally.seconds, 3),
            "values": {name: finite(value) for name, value in self.values().items()},
            "errors_by_kind": dict(tally.errors.most_common()),
        }


def finite(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else round(value, 3)


def _public(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: "…" if any(secret in name.lower() for secret in SECRETS) else value
        for name, value in headers.items()
    }


def in_ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f}"


def row_of_times(title: str, times: Histogram) -> str:
    """The percentiles of `times` (microseconds), the longest and their number; `-` where there is none."""
    values = [times.percentile(percent) / 1000 for percent in PERCENTILES.values()]
    values.append(times.max / 1000 if times.count else math.nan)
    cells = "".join(f"{in_ms(value):>10}" for value in values)
    return f"{title:<{WIDTH}}{cells}{times.count:>10,}"
