"""Counts of values in buckets of constant relative width, as HDR histograms have them."""

from __future__ import annotations

import math
from collections.abc import Iterator

__all__ = ["PERCENTILES", "Histogram", "milliseconds"]

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}


class Histogram:
    """Non-negative integers (microseconds here), of any number in bounded memory.

    A value is kept to its first `bits` binary digits: read back, it is at most 1 / 2^(bits-1)
    above what it was (11: 0.1 %, 6: 3 %). The greatest is kept exactly.
    """

    __slots__ = ("_bits", "_counts", "count", "max")

    def __init__(self, bits: int = 11) -> None:
        self._bits = bits
        self._counts: dict[int, int] = {}  # by the lower edge of the bucket
        self.count = 0
        self.max = 0

    def record(self, value: int) -> None:
        """Count one value; a negative one (clocks differ) counts as 0."""
        value = max(value, 0)
        shift = max(value.bit_length() - self._bits, 0)
        edge = value >> shift << shift
        self._counts[edge] = self._counts.get(edge, 0) + 1
        self.count += 1
        self.max = max(self.max, value)

    def add(self, other: Histogram) -> None:
        """Count what the other has counted; both have the same `bits`."""
        assert self._bits == other._bits
        for edge, count in other._counts.items():
            self._counts[edge] = self._counts.get(edge, 0) + count
        self.count += other.count
        self.max = max(self.max, other.max)

    def percentile(self, percent: float) -> float:
        """The smallest value that `percent` % of all are not above; nan of nothing."""
        if not self.count:
            return math.nan
        # The rounding keeps 99.9 % of 1,000 at 999: the product is a hair above it.
        wanted = max(1, math.ceil(round(self.count * percent / 100, 6)))
        seen = 0
        for edge, count in self.buckets():
            seen += count
            if seen >= wanted:
                return min(self._upper(edge), self.max)
        return self.max

    def buckets(self) -> Iterator[tuple[int, int]]:
        """(lower edge, count), ascending."""
        yield from sorted(self._counts.items())

    def _upper(self, edge: int) -> int:
        return edge + (1 << max(edge.bit_length() - self._bits, 0)) - 1


def milliseconds(histogram: Histogram, prefix: str = "") -> dict[str, float]:
    """The percentiles and the longest of times in microseconds, by name; nan where there is none."""
    found = {
        f"{prefix}{name}": histogram.percentile(percent) / 1000
        for name, percent in PERCENTILES.items()
    }
    return found | {f"{prefix}max": histogram.max / 1000 if histogram.count else math.nan}
