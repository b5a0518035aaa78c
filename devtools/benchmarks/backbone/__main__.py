"""`make bench-backbone`: starts a stack of its own, measures part by part, prints figures beside
their targets and writes devtools/benchmarks/results/backbone.json. See devtools/benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial

import django

from devtools.benchmarks import machine, report
from devtools.localstack import LocalStack

PARTS = ("drain", "effects", "both", "statements", "latency", "idle", "snapshot", "memory")


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-backbone", description=__doc__)
    parser.add_argument("parts", nargs="*", type=report.one_of(PARTS), help="default: all of them")
    parser.add_argument("--events", type=int, default=100_000, help="size of a backlog")
    parser.add_argument("--steady-seconds", type=float, default=30.0)
    parser.add_argument("--held-seconds", type=float, default=180.0)
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    parser.add_argument("--many", type=int, default=1_000_000, help="events of the memory part")
    options = parser.parse_args()
    with LocalStack.ephemeral(own_servers=True) as stack:
        os.environ.update(stack.env | {"LOG_LEVEL": "ERROR"})
        django.setup()
        described = machine.describe(stack.env["DATABASE_URL"])
        figures = []
        for name, measure in _parts(stack, options).items():
            if not options.parts or name in options.parts:
                found = measure()
                report.show(name, found)
                figures += found
    report.show("The backbone", figures)
    report.write("backbone", described, figures)
    return report.exit_code(figures)


def _parts(
    stack: LocalStack, options: argparse.Namespace
) -> dict[str, Callable[[], list[report.BenchFigure]]]:
    from devtools.benchmarks.backbone import standing, throughput  # noqa: PLC0415  (needs Django's settings)
    from devtools.benchmarks.backbone.stage import Stage  # noqa: PLC0415

    stage = Stage(stack)
    return {
        "drain": partial(throughput.drain_alone, stage, options.events),
        "effects": partial(throughput.effects_alone, stage, options.events),
        "both": partial(throughput.both_at_once, stage, options.events),
        "statements": partial(throughput.statements, stage, options.events),
        "latency": partial(standing.latency, stage, options.steady_seconds),
        "idle": partial(standing.idle, stage, options.idle_seconds),
        "snapshot": partial(throughput.held_snapshot, stage, options.events, options.held_seconds),
        "memory": partial(standing.memory, stage, options.many),
    }


if __name__ == "__main__":
    sys.exit(main())
