"""The table at the end: one line a promise, and whether it was kept."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

__all__ = ["ReportLine", "print_report"]


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One line of the table. `ok` None: a figure without a verdict."""

    name: str
    value: str
    ok: bool | None = None
    note: str = ""


def print_report(console: Console, lines: list[ReportLine], conclusion: str) -> bool:
    """Print it, the conclusion last; whether every line with a verdict is ok."""
    table = Table(title="What became of every event", title_justify="left")
    table.add_column("")
    table.add_column("figure", justify="right")
    table.add_column("verdict")
    table.add_column("meaning", overflow="fold")
    for line in lines:
        verdict = {None: "", True: "[green]ok[/]", False: "[bold red]FAILED[/]"}[line.ok]
        table.add_row(line.name, line.value, verdict, line.note)
    console.print(table)
    kept = all(line.ok is not False for line in lines)
    console.print(f"[{'bold green' if kept else 'bold red'}]{conclusion}[/]", highlight=False)
    return kept
