"""What `python -m devtools.chaos` does once its stack is up."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from rich.console import Console

from devtools.benchmarks.machine import describe
from devtools.chaos.evidence import Evidence
from devtools.chaos.mutation import MUTANTS, play_mutant
from devtools.chaos.notifications.table import is_of_notifications, print_sends
from devtools.chaos.relay.mutation import MUTANTS as RELAY_MUTANTS
from devtools.chaos.relay.mutation import play_mutant as play_relay_mutant
from devtools.chaos.relay.run import RelayStage, print_relay_table
from devtools.chaos.relay.scenarios import SCENARIOS as RELAY_SCENARIOS
from devtools.chaos.report import print_mutants, print_table, write_json
from devtools.chaos.run import ScenarioResult, ScenarioStage
from devtools.chaos.scenarios import SCENARIOS
from devtools.localstack import LocalStack

__all__ = ["run"]


def run(stack: LocalStack, directory: Path, options: argparse.Namespace, console: Console) -> int:
    """Play what was asked for; the exit code."""
    url = stack.env["DATABASE_URL"]
    Evidence(url).rows("CREATE TABLE chaos_log (LIKE probe_log INCLUDING ALL)")
    machine = {**describe(url), "system": platform.platform(), "load": options.load}
    stage = ScenarioStage(stack, directory, options.quick, console.print, options.load)
    relay_stage = RelayStage(stack, directory, quick=options.quick, say=console.print)
    results: list[ScenarioResult] = []
    of_relay: list[ScenarioResult] = []
    names = _names(options)
    try:
        if options.mutants:
            for mutant in _chosen(MUTANTS, names):
                results.append(play_mutant(stage, mutant))
            for relay_mutant in _chosen(RELAY_MUTANTS, names) if _has_relay(stack) else ():
                of_relay.append(play_relay_mutant(relay_stage, relay_mutant))
        else:
            for scenario in _played(SCENARIOS, names, options.quick):
                results.append(stage.play(scenario))
            if _has_relay(stack):
                played = _played(RELAY_SCENARIOS, names, options.quick)
                for relay_scenario in relay_stage.playable(played):
                    of_relay.append(relay_stage.play(relay_scenario))
    finally:
        if results:
            (print_mutants if options.mutants else _print_scenarios)(console, results)
        if of_relay:
            (print_mutants if options.mutants else print_relay_table)(console, of_relay)
        results += of_relay
        kind = "mutants" if options.mutants else "chaos"
        console.print(str(write_json(results, machine, quick=options.quick, kind=kind)))
    failed = [result.mutant or result.scenario for result in results if not result.ok]
    if failed:
        console.print(f"[bold red]FAILED: {', '.join(failed)}[/]")
    return 1 if failed or not results else 0


def _print_scenarios(console: Console, results: Sequence[ScenarioResult]) -> None:
    sends = [result for result in results if is_of_notifications(result)]
    if events := [result for result in results if result not in sends]:
        print_table(console, events)
    if sends:
        print_sends(console, sends)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Quick(_Named, Protocol):
    @property
    def quick(self) -> bool: ...


T = TypeVar("T", bound=_Named)
Q = TypeVar("Q", bound=_Quick)


def _names(options: argparse.Namespace) -> Sequence[str]:
    """What was asked for by name. Ends the program if there is no such thing."""
    tables: tuple[Sequence[_Named], ...] = (
        (MUTANTS, RELAY_MUTANTS) if options.mutants else (SCENARIOS, RELAY_SCENARIOS)
    )
    known = [one.name for table in tables for one in table]
    names: list[str] = options.names
    if unknown := set(names) - set(known):
        raise SystemExit(
            f"There is no {', '.join(sorted(unknown))}; choose from: " + ", ".join(known)
        )
    return names


def _chosen(known: Sequence[T], names: Sequence[str]) -> Sequence[T]:
    """Those asked for, in the order of the table; all if nobody asked."""
    return [one for one in known if not names or one.name in names]


def _played(known: Sequence[Q], names: Sequence[str], quick: bool) -> Sequence[Q]:
    """The same; if nobody asked, a quick run plays the quick ones."""
    if names:
        return _chosen(known, names)
    return [one for one in known if one.quick or not quick]


def _has_relay(stack: LocalStack) -> bool:
    return "RABBITMQ_URL" in stack.env
