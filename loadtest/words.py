"""What the reports of feeds and of notifications say alike: thresholds, and times as a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from loadtest.histogram import Histogram
from loadtest.thresholds import Threshold

__all__ = ["crossed", "row_of_times", "threshold_lines", "titles_of_times"]


def crossed(thresholds: Sequence[Threshold], values: Mapping[str, float]) -> list[Threshold]:
    """The thresholds that these values cross."""
    return [each for each in thresholds if each.crossed(values)]


def threshold_lines(thresholds: Sequence[Threshold], values: Mapping[str, float]) -> list[str]:
    """A line for each threshold: whether it was kept, and the value."""
    over = crossed(thresholds, values)
    return [
        f"{'crossed' if each in over else 'kept'} {each.text} (it was {values[each.key]:,.4g})"
        for each in thresholds
    ]


def titles_of_times(percentiles: Iterable[str], *, width: int) -> str:
    """The line above rows of times, which are in milliseconds."""
    cells = "".join(f"{name:>10}" for name in (*percentiles, "max", "number"))
    return f"{'milliseconds':<{width}}{cells}"


def row_of_times(title: str, times: Histogram, percentiles: Iterable[float], *, width: int) -> str:
    """The percentiles of `times` (microseconds), the longest and their number; `-` where there is none."""
    values = [times.percentile(percent) / 1000 for percent in percentiles]
    values.append(times.max / 1000 if times.count else math.nan)
    cells = "".join(f"{'-' if math.isnan(value) else f'{value:,.1f}':>10}" for value in values)
    return f"{title:<{width}}{cells}{times.count:>10,}"
