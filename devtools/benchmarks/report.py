"""Figures beside their targets: one table, one JSON file, one exit code."""

from __future__ import annotations

import json
import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["BenchFigure", "exit_code", "one_of", "show", "write"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFigure:
    """One measured value. `at_least` or `at_most` is its target; neither: it is only shown.

    `ceiling` is what the machine allowed in the same run, in the same unit.
    """

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    ceiling: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one. A nan reaches nothing."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    @property
    def target(self) -> str:
        """The target as the table shows it."""
        if self.at_least is not None:
            return f"≥ {_number(self.at_least)}"
        return "" if self.at_most is None else f"≤ {_number(self.at_most)}"


def show(title: str, figures: Sequence[BenchFigure], *, width: int = 118) -> None:
    """Print the table."""
    table = Table(title=title, title_justify="left")
    for name, justify in (
        ("figure", "left"),
        ("value", "right"),
        ("target", "right"),
        ("ceiling, same run", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    marks = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}
    for figure in figures:
        ceiling = ""
        if figure.ceiling:
            share = 100 * figure.value / figure.ceiling
            ceiling = f"{_number(figure.ceiling)} ({share:.0f} %)"
        value = f"{_number(figure.value)} {figure.unit}"
        name = f"{figure.name}\n[dim]{figure.note}[/]" if figure.note else figure.name
        table.add_row(name, value, figure.target, ceiling, marks[figure.met])
    Console(width=width).print(table)


def write(name: str, machine: Mapping[str, Any], figures: Sequence[BenchFigure]) -> Path:
    """Write devtools/benchmarks/results/<name>.json; returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    rows = [asdict(figure) | {"met": figure.met} for figure in figures]
    path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=2) + "\n")
    return path


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """For `add_argument(type=)`: refuses the name of a part that is none of these."""

    def part(name: str) -> str:
        if name not in names:
            raise ArgumentTypeError(f"there is no part {name!r}, but {', '.join(names)}")
        return name

    return part


def exit_code(figures: Sequence[BenchFigure]) -> int:
    """1 if STRICT is set in the environment and a target is missed."""
    return int(bool(os.environ.get("STRICT")) and any(figure.met is False for figure in figures))


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
