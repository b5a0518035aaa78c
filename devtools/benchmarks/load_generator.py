"""`make bench-load`: what one process of the load generator can send, against a stub server.

Writes devtools/benchmarks/results/load_generator.json; see devtools/benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import psutil

from devtools.benchmarks import report
from devtools.benchmarks.report import BenchFigure
from devtools.testing.processes import free_port, running
from loadtest.generator import GeneratorPlan, generate
from loadtest.machine import describe_machine
from loadtest.tally import LoadTally

RATE = 3000.0
RATE_SHARE = 0.99


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=RATE)
    options = parser.parse_args()
    described = describe_machine()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "loadtest.tests.stub", str(port))
    with running(command, dict(os.environ), f"{url}/health") as stub:
        if (os.cpu_count() or 1) > 1:
            # One processor for the generator, the others for the stub.
            cores = sorted(os.sched_getaffinity(0))
            psutil.Process(stub.pid).cpu_affinity(cores[1:] or cores)
            os.sched_setaffinity(0, cores[:1])
        plan = GeneratorPlan(url=f"{url}/ok", rate=options.rate, seconds=options.seconds, seed=1)
        generate(GeneratorPlan(url=f"{url}/ok", rate=options.rate / 2, seconds=1, seed=2))
        tally, cpu = _measured(plan)
        closed, _ = _measured(
            GeneratorPlan(url=f"{url}/ok", closed=32, seconds=options.seconds / 4)
        )
    figures = [
        BenchFigure(
            name=f"orders accepted at {options.rate:,.0f}/s wanted, one process, one core",
            value=tally.rate,
            unit="/s",
            at_least=RATE_SHARE * tally.due / options.seconds,
            note=f"due {tally.due:,}, not sent {tally.not_sent}, errors {tally.errors.total()}",
        ),
        BenchFigure(
            name="processor time of the generator, an order",
            value=1e6 * cpu / max(1, tally.accepted),
            unit="µs",
            note=f"{100 * cpu / tally.seconds:.0f} % of a core at this rate",
        ),
        BenchFigure(
            name="lag of the generator, p99",
            value=tally.lag.percentile(99) / 1000,
            unit="ms",
            note=f"p50 {tally.lag.percentile(50) / 1000:.2f} ms; timers have milliseconds",
        ),
        BenchFigure(name="closed loop, 32 connections", value=closed.rate, unit="/s"),
    ]
    report.show("The load generator against a stub", figures)
    report.write("load_generator", described, figures)
    return report.exit_code(figures)


def _measured(plan: GeneratorPlan) -> tuple[LoadTally, float]:
    """The run, and the processor time it took this process."""
    begin = time.process_time()
    tally = generate(plan)
    return tally, time.process_time() - begin


if __name__ == "__main__":
    sys.exit(main())
