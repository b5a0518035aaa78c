"""From numbers to the shapes of a chart, in percent of the width and pixels of the height, so that one
drawing fits a phone and a wide screen; without inline style, which the policy forbids. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil, floor, log10

__all__ = ["BarChart", "ChartReading", "Part", "bar_chart", "compact", "parts_of"]

PLOT_HEIGHT = 168  # pixels between the base line and the top of the highest bar
HEADROOM = 22  # above it, for the label of the peak
FOOT = 24  # below the base line, for the labels of the ticks
GAP = 0.28  # share of a bar's place that stays free
LEAST_HEIGHT = 2.0  # pixels: a bar that is not 0 can be seen
GRID_LINES = 4  # about
EDGE = 4  # percent of the width: a label nearer to an edge than this grows away from it
_SUFFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartReading:
    """One number of a series. `label`: what it is of; `words`: the number as text; `tick`: what
    stands below it, if anything; `partial`: its time is not over yet."""

    label: str
    value: Decimal | int
    words: str
    tick: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; x and width in percent, y and height in pixels; `left` and `place` are all of its
    place, for the mouse."""

    reading: ChartReading
    left: str
    place: str
    x: str
    width: str
    y: str
    height: str
    middle: str
    anchor: str


@dataclass(frozen=True, slots=True)
class GridLine:
    """A line across the chart, and the number it stands for."""

    y: str
    text_y: str
    text: str


@dataclass(frozen=True, slots=True)
class Peak:
    """The label above the highest bar."""

    x: str
    y: str
    anchor: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """A series as bars. `peak` is None for a series of zeros."""

    height: int
    base: int
    tick_y: int
    bars: Sequence[Bar]
    lines: Sequence[GridLine]
    peak: Peak | None


def bar_chart(readings: Sequence[ChartReading]) -> BarChart:
    """Bars from 0 upwards, the highest labelled; a number below 0 has no bar."""
    base = HEADROOM + PLOT_HEIGHT
    highest = max((reading.value for reading in readings), default=0)
    step = _step(highest)
    top = max(step * ceil(highest / step), Decimal(1))
    place = Decimal(100) / max(1, len(readings))
    bars = [_bar(reading, index, place, top, base) for index, reading in enumerate(readings)]
    return BarChart(
        height=base + FOOT,
        base=base,
        tick_y=base + 16,
        bars=bars,
        lines=_grid(step, top, base),
        peak=_peak(bars, highest),
    )


def _bar(reading: ChartReading, index: int, place: Decimal, top: Decimal, base: int) -> Bar:
    share = max(Decimal(0), Decimal(reading.value) / top)
    height = max(float(share) * PLOT_HEIGHT, LEAST_HEIGHT) if share else 0.0
    left = place * index
    return Bar(
        reading=reading,
        left=_percent(left),
        place=_percent(place),
        x=_percent(left + place * Decimal(GAP) / 2),
        width=_percent(place * Decimal(1 - GAP)),
        y=f"{base - height:.1f}",
        height=f"{height:.1f}",
        middle=_percent(left + place / 2),
        anchor=_anchor(float(left + place / 2)),
    )


def _anchor(middle: float) -> str:
    """How the label of a peak at this percentage keeps inside the chart."""
    return "start" if middle < EDGE else "end" if middle > 100 - EDGE else "middle"


def _grid(step: Decimal, top: Decimal, base: int) -> list[GridLine]:
    lines = []
    value = step
    while value <= top:
        y = base - float(value / top) * PLOT_HEIGHT
        lines.append(GridLine(f"{y:.1f}", f"{y + 4:.1f}", compact(value)))
        value += step
    return lines


def _peak(bars: Sequence[Bar], highest: Decimal | int) -> Peak | None:
    if highest <= 0:
        return None
    bar = next(bar for bar in bars if bar.reading.value == highest)
    return Peak(bar.middle, f"{float(bar.y) - 6:.1f}", bar.anchor, compact(highest))


def _step(highest: Decimal | int) -> Decimal:
    """1, 2 or 5 times a power of ten, about GRID_LINES of them up to the highest."""
    if highest <= GRID_LINES:
        return Decimal(1)
    rough = Decimal(highest) / GRID_LINES
    power = Decimal(10) ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _percent(value: Decimal) -> str:
    return f"{value:.3f}%"


def compact(value: Decimal | int) -> str:
    """A number in a few characters: 950, 1.2k, 34M."""
    number = Decimal(value)
    index = 0
    while abs(number) >= 1000 and index < len(_SUFFIXES) - 1:
        number /= 1000
        index += 1
    digits = 1 if index and abs(number) < 100 else 0
    if not index and number != number.to_integral_value():
        digits = 2
    text = f"{number:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + _SUFFIXES[index]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a whole, as a piece of one bar: its count and share in words, x and width in
    percent."""

    name: str
    words: str
    share: str
    x: str
    width: str


def parts_of(counts: Sequence[tuple[str, int]]) -> list[Part]:
    """The parts in the order given; their widths add up to 100 % if there is anything at all."""
    whole = sum(max(0, count) for _, count in counts)
    parts, x = [], Decimal(0)
    for name, count in counts:
        width = Decimal(100 * max(0, count)) / whole if whole else Decimal(0)
        parts.append(Part(name, f"{count:,}", f"{width:.1f} %", _percent(x), _percent(width)))
        x += width
    return parts
