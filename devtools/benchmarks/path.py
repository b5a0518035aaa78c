"""`make bench-path`: orders over HTTP at a steady rate, and how long each takes to reach the figures.

Writes devtools/benchmarks/results/path.json and prints a table; see devtools/benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import django
from rich.console import Console
from rich.table import Table

from devtools.benchmarks import machine
from devtools.benchmarks.cpu import seconds_of_stack
from devtools.demo.orders import LoadPlan, run_load
from devtools.localstack import LocalStack
from outbox.process.gc_tuning import tune_gc

__all__ = ["TARGET_RATE_SHARE", "measure_path"]

RESULTS = Path(__file__).parent / "results"
TARGET_P99_MS = 1000.0
TARGET_RATE_SHARE = 0.99  # of the rate wanted: a slower load is another measurement
SETTLE_SECONDS = 60.0
WARM_UP = LoadPlan(orders=300, rate=100.0, seed=7)


def main() -> int:
    """0; with STRICT=1 in the environment 1 if the target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-path", description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="orders a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with LocalStack.ephemeral(own_servers=True) as stack:
        os.environ.update(stack.env | {"LOG_LEVEL": "ERROR"})
        django.setup()
        result = measure_path(stack, options.rate, options.seconds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "path.json").write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    return int(bool(os.environ.get("STRICT")) and not result["target_met"])


def measure_path(stack: LocalStack, rate: float, seconds: float) -> dict[str, Any]:
    """A steady load on the running stack, and how long everything took until it was settled."""
    from devtools.testing import measure  # noqa: PLC0415  (needs Django's settings)

    tune_gc()  # a collection through all that is loaded would count as latency
    described = machine.describe(stack.env["DATABASE_URL"])
    ceiling = machine.insert_ceiling(stack.env["DATABASE_URL"])
    run_load(stack.base_url, WARM_UP)
    measure.settle(SETTLE_SECONDS)
    before, since = seconds_of_stack(stack), measure.database_now()
    plan = LoadPlan(orders=round(rate * seconds), rate=rate, paid_share=0.0, cancelled_share=0.0)
    load = run_load(stack.base_url, plan)
    until = measure.database_now()
    settled = measure.settle(SETTLE_SECONDS)
    after = seconds_of_stack(stack)  # with what the load has left to do
    accepted = load.accepted()
    effect = measure.commit_to_effect("record_sales", since, until)
    post = measure.percentiles([1000 * answer.latency for answer in accepted])
    kafka = measure.commit_to_kafka(since, until)
    achieved = len(accepted) / (until - since).total_seconds()
    lost = settled.heard - settled.applied
    return {
        "machine": described,
        "rate_wanted": rate,
        "rate_achieved": round(achieved, 1),
        "seconds": seconds,
        "sent": load.sent,
        "accepted": len(accepted),
        "lost": lost,
        "settled": settled.settled,
        "post_ms": {"p50": round(post.p50, 1), "p99": round(post.p99, 1)},
        "commit_to_kafka_ms": {"p50": round(kafka.p50, 1), "p99": round(kafka.p99, 1)},
        "commit_to_figures_ms": {"p50": round(effect.p50, 1), "p99": round(effect.p99, 1)},
        "plain_inserts_per_second": round(ceiling),
        "share_of_plain_inserts": round(achieved / ceiling, 3),
        "cpu_ms_per_order": {
            name: round(1000 * (after[name] - before[name]) / max(1, len(accepted)), 2)
            for name in after
        },
        "target_met": (
            settled.settled
            and lost == 0
            and len(accepted) == load.sent
            and achieved >= TARGET_RATE_SHARE * rate
            and post.p99 < TARGET_P99_MS
            and effect.p99 < TARGET_P99_MS
        ),
    }


def _print(result: dict[str, Any]) -> None:
    table = Table(title="POST /orders to sales figures", title_justify="left", show_header=False)
    for name, value in result.items():
        if name == "machine":
            continue
        text = (
            ", ".join(f"{k} {v}" for k, v in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        table.add_row(name.replace("_", " "), text)
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
