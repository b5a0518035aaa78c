"""What a run may not do: `p99>250ms`, `lost>0`, `rate<950`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

__all__ = ["METRICS", "METRICS_OF_CHECK", "ONLY_BY_DATABASE", "Threshold"]

# What the check of accepted orders finds. HTTP shows of an order whether it is stored, not whether
# its events are applied nor what else is stored.
METRICS_OF_CHECK = ("lost", "missing", "without_effect", "duplicates", "answered_twice", "figures")
ONLY_BY_DATABASE = frozenset({"lost", "without_effect", "duplicates", "figures"})

# Metric -> its unit: milliseconds, a count (of which % is a share), or a second.
METRICS: Mapping[str, str] = {
    **dict.fromkeys(["p50", "p90", "p99", "p99.9", "max"], "ms"),
    **{f"{group}_{name}": "ms" for group in ("service", "lag", "e2e")
       for name in ("p50", "p90", "p99", "p99.9", "max")},
    **dict.fromkeys(["errors", "not_sent"], "requests"),
    **dict.fromkeys(["accepted", *METRICS_OF_CHECK], "count"),
    "rate": "/s",
}  # fmt: skip
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
# What each unit accepts, and what it is worth; the first is the one without a word.
UNITS: Mapping[str, Mapping[str, float]] = {
    "ms": {"ms": 1.0, "us": 0.001, "µs": 0.001, "s": 1000.0},
    "requests": {"": 1.0, "%": 1.0},
    "count": {"": 1.0},
    "/s": {"/s": 1.0, "": 1.0},
}
SHAPE = re.compile(r"\s*([a-z0-9_.]+)\s*(>=|<=|==|!=|>|<)\s*([0-9]+(?:\.[0-9]+)?)\s*(\S*)\s*")


@dataclass(frozen=True, slots=True)
class Threshold:
    """`limit` is in milliseconds, a count, orders a second, or percent of what was due."""

    text: str
    metric: str
    sign: str
    limit: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that says what is allowed."""
        found = SHAPE.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is not a threshold: write metric, operator and value, as in "
                f'"p99>250ms", "errors>0.1%" or "lost>0"; metrics: {", ".join(METRICS)}; '
                f"operators: {' '.join(OPERATORS)}."
            )
        metric, sign, number, unit = found.groups()
        if metric not in METRICS:
            raise ValueError(f"{metric!r} is not a metric; the metrics are {', '.join(METRICS)}.")
        worth = UNITS[METRICS[metric]]
        if unit and unit not in worth:
            allowed = ", ".join(each for each in worth if each) or "no unit"
            raise ValueError(f"{metric} is not measured in {unit!r}; it takes {allowed}.")
        factor = worth[unit] if unit else next(iter(worth.values()))
        return cls(text.strip(), metric, sign, float(number) * factor, percent=unit == "%")

    @property
    def key(self) -> str:
        """Its name among the values of a run."""
        return f"{self.metric}_percent" if self.percent else self.metric

    def crossed(self, values: Mapping[str, float]) -> bool:
        """Whether the run did it. A value that nothing gave (nan) crosses every threshold."""
        value = values[self.key]
        return math.isnan(value) or OPERATORS[self.sign](value, self.limit)
