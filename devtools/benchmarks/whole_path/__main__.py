"""`make bench-whole-path`: simple orders at fixed rates through request, commit, outbox, Kafka, both handlers and
figures, up to the ceiling; and what a SIGKILL costs. See devtools/benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import django
from rich.console import Console
from rich.table import Table

from devtools.benchmarks import machine, report
from devtools.localstack import PLAN, LocalStack
from outbox.process.gc_tuning import tune_gc

if TYPE_CHECKING:
    from devtools.benchmarks.whole_path.rates import Found

PARTS = ("rates", "ceiling", "kills")
LEAST_MS = 0.002  # an order, to be named


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    options = _options()
    with LocalStack.ephemeral(own_servers=True, plan=PLAN.only(*PLAN.pipeline)) as stack:
        os.environ.update(stack.env | {"LOG_LEVEL": "ERROR"})
        django.setup()
        from devtools.benchmarks.whole_path.kills import PROCESSES, Kills  # noqa: PLC0415  (needs Django's settings)
        from devtools.benchmarks.whole_path.rates import Rates  # noqa: PLC0415

        tune_gc()
        described = machine.describe(stack.env["DATABASE_URL"])
        rates = Rates(stack, seconds=options.seconds, after=options.after)
        rates.warm_up()
        found: list[Found] = []
        figures: list[report.BenchFigure] = []
        if {"rates", "ceiling"} & set(options.parts):
            rates.measure_idle(options.idle)
            _say(
                f"idle: {100 * rates.idle.machine:.0f} % of a core, the stack {100 * rates.idle.stack:.1f}"
            )
        if "rates" in options.parts:
            for rate in options.rates:
                found.append(rates.at(rate))
                _show(found[-1:])
        if "ceiling" in options.parts:
            steps = rates.ceiling(options.first, options.factor)
            found += steps
            figures.append(_ceiling(steps))
        if "kills" in options.parts:
            kills = Kills(stack, times=options.kills, rate=options.kill_rate)
            for name in options.of or PROCESSES:
                figures += kills.of(name)
    if found:
        _show(found)
    if figures:
        report.show("The whole path", figures)
    _write(described, found, figures)
    return report.exit_code(figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-whole-path", description=__doc__)
    parser.add_argument("parts", nargs="*", type=report.one_of(PARTS), help="default: all of them")
    parser.add_argument(
        "--rates",
        type=_numbers,
        default=[500.0, 1000.0, 2000.0, 3000.0, 4000.0],
        help="a list: 500,3000",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each rate")
    parser.add_argument("--after", type=float, default=70.0, help="seconds that count behind them")
    parser.add_argument("--idle", type=float, default=70.0, help="seconds that say what is idle")
    parser.add_argument("--first", type=float, default=3000.0, help="where the ceiling is begun at")
    parser.add_argument("--factor", type=float, default=1.15, help="from one step to the next")
    parser.add_argument("--kills", type=int, default=20, help="of each process")
    parser.add_argument("--kill-rate", type=float, default=100.0, help="orders a second meanwhile")
    parser.add_argument("--of", action="append", help="a process to kill; default: all three")
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    return options


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _ceiling(steps: list[Found]) -> report.BenchFigure:
    return report.BenchFigure(
        name="ceiling: highest rate that was kept up",
        value=max((step.rate for step in steps if step.holds), default=float("nan")),
        unit="orders/s",
        note=", ".join(f"{step.rate:,.0f} {'yes' if step.holds else 'no'}" for step in steps),
    )


def _show(found: list[Found]) -> None:
    table = Table(title="The whole path", title_justify="left")
    columns = ("rate", "answered", "POST p50 / p99", "→ Kafka p50", "→ figures p50 / p99 / most")
    for name in (*columns, "CPU ms", "of the stack", "generator µs", "WAL bytes", "rows", ""):
        table.add_column(name, justify="right")
    for each in found:
        table.add_row(
            f"{each.rate:,.0f}",
            f"{each.answered:,.0f}" + (f", {each.failed} failed" if each.failed else ""),
            f"{each.post_p50:.1f} / {each.post_p99:.1f}",
            f"{each.kafka_p50:.0f}",
            f"{each.figures_p50:.0f} / {each.figures_p99:.0f} / {each.figures_max:.0f}",
            f"{each.cpu_ms:.3f}",
            f"{each.stack_ms:.3f}",
            f"{each.generator_us:.0f}",
            f"{each.wal_bytes:,.0f}",
            f"{each.rows:.1f}",
            f"{each.lost} lost" if each.lost else "holds" if each.holds else "",
        )
    Console(width=130).print(table)
    for each in found:
        ranked = sorted(each.by_process.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {spent:.3f}" for name, spent in ranked if spent >= LEAST_MS)
        _say(f"{each.rate:,.0f}/s, ms an order: {told}")


def _say(text: str) -> None:
    Console(width=130).print(text)
    sys.stdout.flush()


def _write(
    described: dict[str, Any], found: list[Found], figures: list[report.BenchFigure]
) -> None:
    path = report.write("whole_path", described, figures)
    whole = json.loads(path.read_text()) | {"rates": [each.as_json() for each in found]}
    path.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
