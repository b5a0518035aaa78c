"""`make bench-orders`: POST and GET /orders at full speed beside the barest program that does the
same, and a page 10,000 deep. Writes devtools/benchmarks/results/orders.json; see devtools/benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import django
import psycopg

from devtools.benchmarks import machine, report
from devtools.benchmarks.orders import bare
from devtools.benchmarks.orders.client import TOOL
from devtools.localstack import LocalStack
from devtools.testing.processes import command_of, free_port, running

if TYPE_CHECKING:
    from devtools.benchmarks.orders.rows import Servers

PARTS = ("writes", "reads", "depth")
WARM_UP_SECONDS = 1.0


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-orders", description=__doc__)
    parser.add_argument("parts", nargs="*", type=report.one_of(PARTS), help="default: all of them")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--orders", type=int, default=1_000_000, help="stored before reading")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32, 256])
    options = parser.parse_args()
    if options.orders < 100:
        parser.error("--orders: at least 100, there is no deep page in fewer")
    with LocalStack.ephemeral(own_servers=True) as stack:
        os.environ.update(stack.env | {"LOG_LEVEL": "ERROR"})
        django.setup()
        described = machine.describe(stack.env["DATABASE_URL"]) | {"load": TOOL}
        figures = _measure(stack, options)
    report.show(f"Orders (load by {TOOL})", figures)
    report.write("orders", described, figures)
    return report.exit_code(figures)


def _measure(stack: LocalStack, options: argparse.Namespace) -> list[report.BenchFigure]:
    """Only the web process runs: what happens to the events has benchmarks of its own."""
    from devtools.benchmarks.backbone.stage import Stage  # noqa: PLC0415  (needs Django's settings)
    from devtools.benchmarks.orders import rows  # noqa: PLC0415

    stage = Stage(stack)
    stage.only("web")
    parts = options.parts or PARTS
    figures: list[report.BenchFigure] = []

    def add(found: list[report.BenchFigure]) -> None:
        report.show("orders", found)
        figures.extend(found)

    with _servers(stack) as servers, tempfile.TemporaryDirectory() as directory:
        ids = Path(directory, "ids")
        for _ in rows.writes(servers, 4, WARM_UP_SECONDS):
            pass
        before = stage.memory_of("web")
        for connections in options.connections:
            if "writes" in parts:
                add(list(rows.writes(servers, connections, options.seconds)))
        if "reads" in parts or "depth" in parts:
            rows.fill(options.orders, ids)
        for connections in options.connections:
            if "reads" in parts:
                add(list(rows.reads(servers, connections, options.seconds, ids)))
        if "depth" in parts:
            add(rows.deep_page(servers, options.orders, options.seconds))
        add(_memory(before, stage.memory_of("web")))
    return figures


@contextmanager
def _servers(stack: LocalStack) -> Iterator[Servers]:
    """Ours of the stack, a second one with HOT_PATHS off, and the bare program, on its database."""
    from devtools.benchmarks.orders import rows  # noqa: PLC0415

    off, plain = free_port(), free_port()
    application = ("--application", "devtools.benchmarks.orders.bare:application")
    program = (sys.executable, "manage.py", "run_web", *application)
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(bare.CREATE)
    with ExitStack() as stopping:
        stopping.enter_context(
            running(
                command_of("web", off),
                stack.env | {"HOT_PATHS": "0", "PORT": str(off)},
                f"http://127.0.0.1:{off}/health",
            )
        )
        stopping.enter_context(
            running((*program, "--port", str(plain)), stack.env, f"http://127.0.0.1:{plain}/health")
        )
        yield rows.Servers(
            ours=stack.base_url,
            without_hot_paths=f"http://127.0.0.1:{off}",
            bare=f"http://127.0.0.1:{plain}",
        )


def _memory(before: int, after: int) -> list[report.BenchFigure]:
    return [
        report.BenchFigure(
            name="unique memory of our web process at the end",
            value=after / 2**20,
            unit="MiB",
            note=f"after the warm-up: {before / 2**20:.0f} MiB",
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
