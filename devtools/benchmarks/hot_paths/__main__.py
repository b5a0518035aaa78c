"""`make bench-hot-paths`: starts a stack of its own, measures part by part, prints figures beside
their targets and writes devtools/benchmarks/results/hot_paths.json. See devtools/benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from operator import itemgetter

import django

from devtools.benchmarks import machine, path, report
from devtools.benchmarks.hot_paths.wrk import require_wrk
from devtools.localstack import PLAN, LocalStack

MEASURED = ("steady", "hot", "bare", "django", "gateway")
PARTS = (*MEASURED, "profile")
PROCESSES = PLAN.pipeline


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-hot-paths", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", type=report.one_of(PARTS), help="default: all but profile"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--steady-rate", type=float, default=2000.0, help="POSTs a second")
    parser.add_argument("--steady-seconds", type=float, default=60.0)
    options = parser.parse_args()
    require_wrk()
    with LocalStack.ephemeral(own_servers=True) as stack:
        os.environ.update(stack.env | {"LOG_LEVEL": "ERROR"})
        django.setup()
        described = machine.describe(stack.env["DATABASE_URL"])
        figures = []
        for name, measure in _parts(stack, options).items():
            if name in (options.parts or MEASURED):
                found = measure()
                report.show(name, found)
                figures += found
    report.show("Hot paths", figures)
    report.write("hot_paths", described, figures)
    return report.exit_code(figures)


def _parts(
    stack: LocalStack, options: argparse.Namespace
) -> dict[str, Callable[[], list[report.BenchFigure]]]:
    from devtools.benchmarks.hot_paths.rates import HotPathRates  # noqa: PLC0415  (needs Django's settings)

    rates = HotPathRates(stack, options.seconds)
    return {
        # first: whatever the others leave behind would be its backlog
        "steady": partial(_steady, stack, options.steady_rate, options.steady_seconds),
        # before the turns with the bare server, which leave two million orders behind
        "hot": partial(_alone, stack, rates.hot),
        "bare": partial(_alone, stack, rates.bare),
        "django": partial(_alone, stack, rates.django),
        "gateway": partial(_alone, stack, rates.gateway),
        "profile": partial(_alone, stack, rates.profile),
    }


def _alone(
    stack: LocalStack, measure: Callable[[], list[report.BenchFigure]]
) -> list[report.BenchFigure]:
    """Without our processes; the part starts the web process it is about."""
    for name in PROCESSES:
        stack.process(name).stop()
    return measure()


def _steady(stack: LocalStack, rate: float, seconds: float) -> list[report.BenchFigure]:
    """The whole pipeline under a steady load; see devtools/benchmarks/path.py."""
    found = path.measure_path(stack, rate, seconds)
    at = f"at {found['rate_achieved']:.0f}/s"
    cpu = sorted(found["cpu_ms_per_order"].items(), key=itemgetter(1), reverse=True)
    return [
        report.BenchFigure(
            name="POST /orders with the whole pipeline running",
            value=found["rate_achieved"],
            unit="/s",
            at_least=path.TARGET_RATE_SHARE * rate,
            note=f"{found['accepted']} of {found['sent']} accepted",
        ),
        report.BenchFigure(
            name="events without their effect at the end", value=found["lost"], unit="", at_most=0
        ),
        report.BenchFigure(
            name=f"commit → figures {at}, p99",
            value=found["commit_to_figures_ms"]["p99"],
            unit="ms",
            at_most=500,
        ),
        report.BenchFigure(
            name=f"POST {at}, p99", value=found["post_ms"]["p99"], unit="ms", at_most=50
        ),
        report.BenchFigure(
            name=f"processor time an order {at}",
            value=sum(milliseconds for _, milliseconds in cpu),
            unit="ms",
            note=", ".join(f"{name} {milliseconds}" for name, milliseconds in cpu if milliseconds),
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
