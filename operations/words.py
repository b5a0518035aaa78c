"""Numbers in words, the same on the page and in the terminal."""

from __future__ import annotations

import math

__all__ = ["NOT_KNOWN", "ago", "bytes_of", "count", "figure", "rate", "span"]

NOT_KNOWN = "?"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def span(seconds: float | None) -> str:
    """A duration: 0.4 s, 12 s, 5 min, 3 h, 2 d; `never` if it is infinite."""
    if seconds is None:
        return NOT_KNOWN
    if math.isinf(seconds):
        return "never"
    seconds = max(0.0, seconds)
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def ago(seconds: float) -> str:
    """How long ago something was: 12 s ago; `never` if the time is infinite."""
    return "never" if math.isinf(seconds) else f"{span(seconds)} ago"


def count(number: float | None, *, stopped_at: int = 0) -> str:
    """A number of things. `stopped_at`: the bound of the count; a number that reaches it gets a plus."""
    if number is None:
        return NOT_KNOWN
    more = "+" if stopped_at and number >= stopped_at else ""
    return f"{number:,.0f}{more}"


def rate(per_second: float | None) -> str:
    """How many per second, or per minute if they are few."""
    if per_second is None:
        return NOT_KNOWN
    if per_second >= 10:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 0.5 else f"{per_second * 60:.0f}/min"


def figure(series: str, value: float, *, stopped_at: int = 0) -> str:
    """The value of a series in the unit that its name ends with; a number as `count` says it."""
    name = series.partition("{")[0]
    if name == "upkeep_last_done_seconds":
        return "not yet" if math.isinf(value) else f"{span(value)} ago"
    if name.endswith("_seconds"):
        return span(value)
    if name.endswith("_ratio"):
        return f"{value:.0%}"
    return count(value, stopped_at=stopped_at)


def bytes_of(number: float | None) -> str:
    """A size in MiB, GiB or TiB."""
    if number is None:
        return NOT_KNOWN
    for size, unit in ((1 << 40, "TiB"), (1 << 30, "GiB")):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / (1 << 20):,.0f} MiB"
