"""What `python -m chaos` does once its stack is up."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from rich.console import Console

from benchmarks.machine import describe
from chaos.evidence import Evidence
from chaos.mutation import MUTANTS, play_mutant
from chaos.report import print_mutants, print_table, write_json
from chaos.run import Result, Stage
from chaos.scenarios import SCENARIOS
from eventsite.localstack import LocalStack

__all__ = ["run"]


def run(stack: LocalStack, directory: Path, options: argparse.Namespace, console: Console) -> int:
    """Play what was asked for; the exit code."""
    url = stack.env["DATABASE_URL"]
    Evidence(url).rows("CREATE TABLE chaos_log (LIKE probe_log INCLUDING ALL)")
    machine = {**describe(url), "system": platform.platform(), "load": options.load}
    stage = Stage(stack, directory, options.quick, console.print, options.load)
    results: list[Result] = []
    try:
        if options.mutants:
            for mutant in _chosen(MUTANTS, options.names):
                results.append(play_mutant(stage, mutant))
        else:
            quick = [scenario for scenario in SCENARIOS if scenario.quick or not options.quick]
            for scenario in _chosen(SCENARIOS, options.names) if options.names else quick:
                results.append(stage.play(scenario))
    finally:
        (print_mutants if options.mutants else print_table)(console, results)
        kind = "mutants" if options.mutants else "chaos"
        console.print(str(write_json(results, machine, quick=options.quick, kind=kind)))
    failed = [result.mutant or result.scenario for result in results if not result.ok]
    if failed:
        console.print(f"[bold red]FAILED: {', '.join(failed)}[/]")
    return 1 if failed or not results else 0


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


def _chosen(known: Sequence[T], names: Sequence[str]) -> Sequence[T]:
    """Those asked for, in the order of the table; all if nobody asked."""
    unknown = set(names) - {one.name for one in known}
    if unknown:
        raise SystemExit(
            f"There is no {', '.join(sorted(unknown))}; there are: "
            + ", ".join(one.name for one in known)
        )
    return [one for one in known if not names or one.name in names]
