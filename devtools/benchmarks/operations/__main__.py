"""`make bench-ops`: the operators' page beside a million of everything, and our processes at rest.

Writes devtools/benchmarks/results/operations.json.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

import django
import psycopg
from rich.console import Console

from devtools.benchmarks import report
from devtools.benchmarks.operations.fill import FULL, fill
from devtools.benchmarks.operations.idle import figures_of_idle, work_first
from devtools.benchmarks.operations.looking import BenchViewer, figures_of_looking
from devtools.benchmarks.operations.watching import (
    PAUSED,
    changes_of_letters,
    changes_of_pauses,
    figures_of_viewers,
    until_seen,
    watching,
)
from devtools.image.size import MOST_BYTES, size_of_image
from devtools.localstack import PLAN, LocalStack, Plan
from loadtest.machine import describe_machine

PARTS = ("page", "idle", "size")
NAME = PASSWORD = "admin"  # noqa: S105  (of every local stack)


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-ops", description=__doc__)
    parser.add_argument("parts", nargs="*", type=report.one_of(PARTS), help="default: all")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the rows, and of the events of each app"
    )
    parser.add_argument(
        "--orders", type=int, help="10,000,000 of them take ten minutes to be written"
    )
    parser.add_argument("--looks", type=int, default=300, help="at the page, and at journeys")
    parser.add_argument("--times", type=int, default=10, help="that each change is made")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measure of CPU")
    options = parser.parse_args()
    parts = options.parts or PARTS
    console = Console(stderr=True)
    figures: list[report.BenchFigure] = []
    described = describe_machine()
    for part in parts:
        match part:
            case "page":
                found = _page(options, console)
            case "idle":
                found = _idle(options, console)
            case _:
                found = [_size()]
        figures += found
        # A part takes up to half an hour: what came before one that is broken off is not lost.
        report.show(f"The page of operators, and rest: {part}", found)
        path = report.write("operations", described, figures)
        console.print(
            f"{described['date']}, {described['cores']} × {described['processor']}; {path}"
        )
    return report.exit_code(figures)


def _page(options: argparse.Namespace, console: Console) -> list[report.BenchFigure]:
    """Web alone: nobody takes the pending events away while they are looked at."""
    amounts = FULL.share(options.share)
    if options.orders:
        amounts = replace(amounts, orders=options.orders)
    web = tuple(spec for spec in PLAN.processes if spec.web)
    plan = Plan(web, PLAN.preparation)
    with LocalStack.ephemeral(own_servers=True, plan=plan, report=console.print) as stack:
        with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
            for done in fill(connection.cursor(), amounts):
                console.print(done)
            connection.execute("VACUUM")
            console.print("filled")
        os.environ.update(stack.env | {"LOG_LEVEL": "CRITICAL"})
        django.setup()
        from outbox.handlers.pause import pause_handler, resume_handler  # noqa: PLC0415

        viewer = BenchViewer(stack.base_url)
        viewer.log_in(NAME, PASSWORD)
        figures = figures_of_looking(viewer, amounts, options.looks)
        with watching(stack.base_url, [viewer]) as [watched]:
            pauses = changes_of_pauses(
                lambda reason: pause_handler(PAUSED, reason=reason, by="bench-ops"),
                lambda: resume_handler(PAUSED, by="bench-ops"),
                times=options.times,
            )
            figures += [
                until_seen(watched, pauses),
                until_seen(
                    watched, changes_of_letters(stack.env["DATABASE_URL"], times=options.times)
                ),
            ]
        return [
            *figures,
            *figures_of_viewers(stack, viewer, viewers=options.viewers, seconds=options.seconds),
        ]


def _idle(options: argparse.Namespace, console: Console) -> list[report.BenchFigure]:
    events = round(100_000 * options.share)
    # What a channel may take is not what is measured here.
    environment = {"RATE_LIMIT_PER_CHANNEL": "100000"}
    with LocalStack.ephemeral(
        own_servers=True, report=console.print, extra_env=environment
    ) as stack:
        for done in work_first(stack, events):
            console.print(done)
        console.print("worked")
        return figures_of_idle(
            stack, seconds=options.seconds, note=f"after {events:,} events of each app"
        )


def _size() -> report.BenchFigure:
    size = size_of_image()
    return report.BenchFigure(
        name="what goes into the image",
        value=size.total / 1e6,
        unit="MB",
        at_most=MOST_BYTES / 1e6,
        note=f"{len(size.packages)} packages, tree {size.tree / 1e6:.1f}; largest: {size.largest}"
        + (f"; not installed here: {', '.join(size.absent)}" if size.absent else ""),
    )


if __name__ == "__main__":
    sys.exit(main())
