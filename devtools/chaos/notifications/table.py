"""The table of scenarios of notifications, a line each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from devtools.chaos.notifications.checker import TITLES
from devtools.chaos.run import ScenarioResult

__all__ = ["is_of_notifications", "print_sends"]


def is_of_notifications(result: ScenarioResult) -> bool:
    """Whether its notifications were judged."""
    return any(verdict.invariant in TITLES for verdict in result.verdicts)


def print_sends(console: Console, results: Sequence[ScenarioResult]) -> None:
    """`I`: the twelve invariants of the backbone, which hold for their events too."""
    table = Table(title="What became of every notification", title_justify="left")
    for name in ("scenario", *TITLES, "I"):
        table.add_column(name, justify="left" if name == "scenario" else "right", overflow="fold")
    table.add_column("besides", overflow="fold")
    table.add_column("")
    for result in results:
        found = {verdict.invariant: verdict for verdict in result.verdicts}
        cells = [
            found[name].figure if found[name].ok else f"[bold red]{found[name].damage} damaged[/]"
            for name in TITLES
        ]
        table.add_row(
            result.scenario,
            *cells,
            backbone(result),
            "; ".join([*result.broken, *(f"{k}: {v}" for k, v in result.figures.items())]),
            "ok" if result.ok else "[red]FAILED[/]",
        )
    console.print(table)


def backbone(result: ScenarioResult) -> str:
    """Which of the twelve are damaged; "ok": none."""
    damaged = [
        verdict.invariant
        for verdict in result.verdicts
        if verdict.invariant not in TITLES and not verdict.ok
    ]
    return ", ".join(damaged) or "ok"
