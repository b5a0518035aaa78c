"""`make bench-feeds`: starts a stack of its own, measures part by part, prints figures beside their
targets and writes devtools/benchmarks/results/feeds.json. See devtools/benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial

import django

from devtools.benchmarks import machine, report
from devtools.benchmarks.hot_paths.wrk import require_wrk
from devtools.benchmarks.status_feed.listeners import open_many_files
from devtools.localstack import PLAN, LocalStack

PARTS = ("lag", "pipeline", "posts", "cached", "missing", "live", "fanout")
BY_NAME = ("large",)  # takes minutes to fill
PROCESSES = PLAN.names


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-feeds", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        type=report.one_of((*PARTS, *BY_NAME)),
        help=f"default: all but {', '.join(BY_NAME)}",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--readers", type=int, default=10_000, help="each follows 200 authors")
    parser.add_argument("--entries", type=int, default=100, help="of each reader")
    parser.add_argument("--sockets", type=int, default=1_000, help="that are open")
    parser.add_argument(
        "--large", type=int, default=20_000_000, help="entries of the large database"
    )
    parser.add_argument("--users", type=int, default=100_000, help="of the fan-out")
    parser.add_argument("--window", type=int, default=50, help="of the users of the fan-out")
    options = parser.parse_args()
    require_wrk()
    open_many_files()
    with LocalStack.ephemeral(own_servers=True) as stack:
        # Of this process, which works slices off, and of the web processes that a part starts.
        own = {
            "LOG_LEVEL": "ERROR",
            "FEED_WINDOW": str(options.window),
            "FEED_CACHE_SECONDS": "36000",
        }
        os.environ.update(stack.env | own)
        django.setup()
        described = machine.describe(stack.env["DATABASE_URL"])
        figures = []
        for name, measure in _parts(stack, options).items():
            if name in (options.parts or PARTS):
                found = measure()
                report.show(name, found)
                figures += found
    report.show("Feeds", figures)
    report.write("feeds", described, figures)
    return report.exit_code(figures)


def _parts(
    stack: LocalStack, options: argparse.Namespace
) -> dict[str, Callable[[], list[report.BenchFigure]]]:
    # They need Django's settings.
    from devtools.benchmarks.feeds.fanout import FanOut  # noqa: PLC0415
    from devtools.benchmarks.feeds.lag import Lag  # noqa: PLC0415
    from devtools.benchmarks.feeds.large import Large  # noqa: PLC0415
    from devtools.benchmarks.feeds.live import Live  # noqa: PLC0415
    from devtools.benchmarks.feeds.rates import FeedRates  # noqa: PLC0415
    from devtools.benchmarks.feeds.world import FeedReading  # noqa: PLC0415

    rates = FeedRates(
        stack, options.seconds, FeedReading(readers=options.readers, entries=options.entries)
    )
    fanout = FanOut(stack, options.seconds, options.users)
    return {
        # With all processes, and first: what the others leave behind would be its backlog.
        "lag": Lag(stack, options.seconds).figures,
        "pipeline": rates.pipeline,
        "posts": partial(_alone, stack, rates.posts),
        "cached": partial(_alone, stack, rates.cached),
        "missing": partial(_alone, stack, rates.missing),
        "live": partial(_alone, stack, Live(stack, options.seconds, options.sockets).figures),
        "large": partial(_alone, stack, Large(stack, options.large).figures),
        "fanout": partial(_alone, stack, fanout.figures),
    }


def _alone(
    stack: LocalStack, measure: Callable[[], list[report.BenchFigure]]
) -> list[report.BenchFigure]:
    """Without our processes; the part starts the web processes that it is about."""
    for name in PROCESSES:
        stack.process(name).stop()
    return measure()


if __name__ == "__main__":
    sys.exit(main())
