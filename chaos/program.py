"""What `python -m chaos` does once its stack is up."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.machine import describe
from chaos.evidence import Evidence
from chaos.report import print_table, write_json
from chaos.run import Stage
from chaos.scenarios import SCENARIOS, Scenario
from eventsite.localstack import LocalStack

__all__ = ["run"]


def run(
    stack: LocalStack, directory: Path, options: argparse.Namespace, console: Console
) -> int:
    """Play what was asked for; the exit code."""
    Evidence(stack.env["DATABASE_URL"]).rows("CREATE TABLE chaos_log (LIKE probe_log INCLUDING ALL)")
    machine = {**describe(stack.env["DATABASE_URL"]), "system": platform.platform()}
    stage = Stage(stack, directory, options.quick, console.print)
    results = [stage.play(scenario) for scenario in _chosen(options)]
    print_table(console, results)
    path = write_json(results, machine, quick=options.quick, kind="chaos")
    console.print(f"{path}")
    failed = [result.scenario for result in results if not result.ok]
    if failed:
        console.print(f"[bold red]FAILED: {', '.join(failed)}[/]")
    return 1 if failed or not results else 0


def _chosen(options: argparse.Namespace) -> Sequence[Scenario]:
    names = options.names
    unknown = set(names) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        raise SystemExit(
            f"No scenario {', '.join(sorted(unknown))}; there are: "
            + ", ".join(scenario.name for scenario in SCENARIOS)
        )
    if names:
        return [scenario for scenario in SCENARIOS if scenario.name in names]
    return [scenario for scenario in SCENARIOS if scenario.quick or not options.quick]
