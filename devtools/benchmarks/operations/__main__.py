"""`make bench-ops`: the operators' page beside a million of everything, and our processes at rest.

Writes devtools/benchmarks/results/operations.json.
"""

from __future__ import annotations

import argparse
import os
import sys

import django
import psycopg
from rich.console import Console

from devtools.benchmarks import report
from devtools.benchmarks.operations.fill import FULL, fill
from devtools.benchmarks.operations.idle import figures_of_idle, work_first
from devtools.benchmarks.operations.looking import (
    HANDLER,
    BenchViewer,
    figures_of_looking,
    figures_of_viewers,
    seconds_until_seen,
)
from devtools.benchmarks.operations.size import figures_of_size
from devtools.localstack import PLAN, LocalStack, Plan
from loadtest.machine import describe_machine

PARTS = ("page", "idle", "size")
NAME = PASSWORD = "admin"  # noqa: S105  (of every local stack)


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-ops", description=__doc__)
    parser.add_argument("parts", nargs="*", type=report.one_of(PARTS), help="default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, and of the events")
    parser.add_argument("--looks", type=int, default=300, help="at the page, and at journeys")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measure of CPU")
    options = parser.parse_args()
    parts = options.parts or PARTS
    console = Console(stderr=True)
    figures: list[report.BenchFigure] = []
    described = describe_machine()
    if "page" in parts:
        figures += _page(options, console)
    if "idle" in parts:
        figures += _idle(options, console)
    if "size" in parts:
        figures += figures_of_size()
    report.show("The page of operators, and rest", figures)
    path = report.write("operations", described, figures)
    console.print(f"{described['date']}, {described['cores']} × {described['processor']}; {path}")
    return report.exit_code(figures)


def _page(options: argparse.Namespace, console: Console) -> list[report.BenchFigure]:
    """Web alone: nobody takes the pending events away while they are looked at."""
    amounts = FULL.share(options.share)
    web = tuple(spec for spec in PLAN.processes if spec.web)
    plan = Plan(web, PLAN.preparation)
    with LocalStack.ephemeral(own_servers=True, plan=plan, report=console.print) as stack:
        with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
            for done in fill(connection.cursor(), amounts):
                console.print(done)
            connection.execute("VACUUM")
        os.environ.update(stack.env | {"LOG_LEVEL": "CRITICAL"})
        django.setup()
        from outbox.handlers.pause import pause_handler, resume_handler  # noqa: PLC0415

        viewer = BenchViewer(stack.base_url, NAME, PASSWORD)
        pid = stack.process("web").pid
        return [
            *figures_of_looking(viewer, amounts, options.looks),
            *seconds_until_seen(
                viewer,
                lambda: pause_handler(HANDLER, reason="measured", by="bench-ops"),
                lambda: resume_handler(HANDLER, by="bench-ops"),
            ),
            *figures_of_viewers(
                stack.base_url,
                NAME,
                PASSWORD,
                pid,
                viewers=options.viewers,
                seconds=options.seconds,
            ),
        ]


def _idle(options: argparse.Namespace, console: Console) -> list[report.BenchFigure]:
    events = round(100_000 * options.share)
    # What a channel may take is not what is measured here.
    environment = {"RATE_LIMIT_PER_CHANNEL": "100000"}
    with LocalStack.ephemeral(
        own_servers=True, report=console.print, extra_env=environment
    ) as stack:
        work_first(stack, events)
        return figures_of_idle(
            stack, seconds=options.seconds, note=f"after {events:,} requests of each app"
        )


if __name__ == "__main__":
    sys.exit(main())
