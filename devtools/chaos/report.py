"""The table, a line a scenario, and the same as JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from devtools.chaos.run import ScenarioResult

__all__ = ["RESULTS", "print_mutants", "print_table", "write_json"]

RESULTS = Path(__file__).resolve().parent / "results"
INVARIANTS = [f"I{number}" for number in range(1, 13)]


def print_table(console: Console, results: Sequence[ScenarioResult]) -> None:
    """One line a scenario; a damaged invariant shows its count."""
    table = Table(title="What became of every event", title_justify="left")
    table.add_column("scenario")
    for name in INVARIANTS:
        table.add_column(name, justify="right")
    table.add_column("besides", overflow="fold")
    table.add_column("")
    for result in results:
        table.add_row(
            result.scenario,
            *_cells(result),
            _besides(result),
            "ok" if result.ok else "[red]FAILED[/]",
        )
    console.print(table)


def print_mutants(console: Console, results: Sequence[ScenarioResult]) -> None:
    """One line a mutant: what was announced, and all that was seen."""
    table = Table(title="What the checker saw of each broken guard", title_justify="left")
    for column in ("mutant", "scenario", "what is broken", "announced", "seen", ""):
        table.add_column(column, overflow="fold")
    for result in results:
        seen = [f"{v.invariant}: {v.damage}" for v in result.verdicts if not v.ok]
        demands = [str(result.figures["demands"])] if "demands" in result.figures else []
        notes = [*demands, *result.broken, *([result.redundant] if result.redundant else [])]
        table.add_row(
            result.mutant,
            result.scenario,
            result.title,
            result.announced,
            "; ".join([*seen, *notes]) or "nothing",
            "caught" if result.ok else "[bold red]MISSED[/]",
        )
    console.print(table)


def _cells(result: ScenarioResult) -> list[str]:
    found = {verdict.invariant: verdict for verdict in result.verdicts}
    cells = []
    for name in INVARIANTS:
        verdict = found.get(name)
        if verdict is None:
            cells.append("-")
        elif verdict.ok:
            cells.append(verdict.figure)
        elif name in result.expected:
            cells.append(f"[yellow]{verdict.damage} expected[/]")
        else:
            cells.append(f"[bold red]{verdict.damage} damaged[/]")
    return cells


def _besides(result: ScenarioResult) -> str:
    return "; ".join(
        [*result.broken, *(f"{name}: {value}" for name, value in result.figures.items())]
    )


def write_json(
    results: Sequence[ScenarioResult], machine: Mapping[str, Any], *, quick: bool, kind: str
) -> Path:
    """Beside the table, for comparing; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{kind}-{now:%Y%m%dT%H%M%S}.json"
    content = {
        "machine": dict(machine),
        "commit": _commit(),
        "quick": quick,
        "results": [result.as_json() for result in results],
    }
    path.write_text(json.dumps(content, indent=1, default=str))
    return path


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return answer.stdout.strip()
