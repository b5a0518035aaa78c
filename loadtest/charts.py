"""Charts as SVG text, drawn with the colours of the page around them (CSS variables), in percent of the
width, so that one drawing can be read on a phone and on a wide screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "ChartLine", "chart", "exactly", "linear", "logarithmic"]

WIDTH, PLOT_HEIGHT = 1000, 218  # of the canvas; its height is in pixels, its width is stretched
TOP, BOTTOM = 12, 30  # pixels above and below it; the page leaves room to the left, for labels
HEIGHT = TOP + PLOT_HEIGHT + BOTTOM


@dataclass(frozen=True, slots=True)
class Axis:
    """`place` takes a value to 0…1; `ticks` are values and what is written at them."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class ChartLine:
    """One line; nan is a gap. `style`: a class of the page's sheet."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def linear(highest: float, unit: str = "", *, steps: int = 4) -> Axis:
    """From 0 to a round number at or above `highest`."""
    step = _round_step(max(highest, 1e-9) / steps)
    return exactly(step * math.ceil(max(highest, step) / step - 1e-9), unit, step=step)


def exactly(highest: float, unit: str = "", *, step: float = 0.0) -> Axis:
    """From 0 to `highest` itself, with round ticks before it, `step` apart (0: about eight of them)."""
    step = step or _round_step(highest / 8)
    values = [step * n for n in range(math.floor(highest / step + 1e-9) + 1)]
    ticks = [(value, f"{value:,g}{unit if value == values[-1] else ''}") for value in values]
    return Axis(lambda value: value / highest, ticks)


def logarithmic(lowest: float, highest: float, write: Callable[[float], str]) -> Axis:
    """Whole decades around the two, at least two of them."""
    low = math.floor(math.log10(max(lowest, 1e-3)))
    high = max(math.ceil(math.log10(max(highest, 1e-3))), low + 2)
    ticks = [(10.0**power, write(10.0**power)) for power in range(low, high + 1)]
    return Axis(
        lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low),
        ticks,
    )


def chart(
    title: str,
    x: Axis,
    y: Axis,
    lines: Sequence[ChartLine],
    *,
    hover: Sequence[tuple[float, float, str]] = (),
) -> str:
    """One figure. `hover`: x from, x to, and what is said of this span."""
    grid = [_horizontal(y.place(value), text) for value, text in y.ticks]
    grid += [_vertical(x.place(value), text) for value, text in x.ticks]
    drawn = [_line(x, y, line) for line in lines]
    spans = [
        f'<rect class="hover" x="{_x(x.place(a)):.1f}" y="0" height="{PLOT_HEIGHT}" '
        f'width="{max(_x(x.place(b)) - _x(x.place(a)), 0.5):.1f}"><title>{escape(text)}</title></rect>'
        for a, b, text in hover
    ]
    legend = "".join(
        f'<span class="key"><i class="{line.style}"></i>{escape(line.name)}</span>'
        for line in lines
    )
    return (
        f'<figure><figcaption><b>{escape(title)}</b><span class="legend">{legend}</span></figcaption>'
        f'<div class="plot"><svg width="100%" height="{HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">{"".join(grid)}'
        f'<svg y="{TOP}" width="100%" height="{PLOT_HEIGHT}" viewBox="0 0 {WIDTH} {PLOT_HEIGHT}"'
        f' preserveAspectRatio="none">{"".join([*drawn, *spans])}</svg></svg></div></figure>'
    )


def _x(share: float) -> float:
    return share * WIDTH


def _y(share: float) -> float:
    return (1 - min(max(share, 0.0), 1.0)) * PLOT_HEIGHT


def _horizontal(share: float, text: str) -> str:
    at = TOP + _y(share)
    return (
        f'<line class="grid" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="-8" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def _vertical(share: float, text: str) -> str:
    at, base = 100 * share, TOP + PLOT_HEIGHT
    anchor = "end" if share > 0.98 else "middle"
    return (
        f'<line class="notch" x1="{at:.2f}%" x2="{at:.2f}%" y1="{base}" y2="{base + 5}"/>'
        f'<text class="tick" x="{at:.2f}%" y="{HEIGHT - 9}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x: Axis, y: Axis, line: ChartLine) -> str:
    pieces: list[list[str]] = [[]]
    for at, value in line.points:
        if math.isnan(value):
            pieces.append([])
        else:
            pieces[-1].append(f"{_x(x.place(at)):.1f},{_y(y.place(value)):.1f}")
    return "".join(
        f'<polyline class="{line.style}" points="{" ".join(piece if len(piece) > 1 else piece * 2)}"/>'
        for piece in pieces
        if piece
    )


def _round_step(wanted: float) -> float:
    power = 10.0 ** math.floor(math.log10(wanted))
    return next((step * power for step in (1, 2, 5, 10) if step * power >= wanted - 1e-12), power)
