"""What the pipeline does when little happens, and what is left of it after much."""

from __future__ import annotations

import time

from devtools.benchmarks.backbone.events import fill, order_created, trace
from devtools.benchmarks.backbone.stage import HANDLER, OURS, Stage
from devtools.benchmarks.report import BenchFigure
from devtools.testing import measure
from outbox.database.unit_of_work import unit_of_work
from outbox.publish.events import publish

__all__ = ["idle", "latency", "memory"]

STEADY_RATE = 500


def latency(stage: Stage, seconds: float) -> list[BenchFigure]:
    """One event a transaction, 500 a second by the clock."""
    stage.only("worker-outbox", "worker-effects", "beat", "bridge")
    _write_steadily(2.0)
    stage.wait_applied(0)
    after, since = stage.newest_id(), measure.database_now()
    rate = _write_steadily(seconds)
    until = measure.database_now()
    stage.wait_applied(after)
    kafka = measure.commit_to_kafka(since, until)
    effect = measure.commit_to_effect(HANDLER, since, until)
    at = f"at {rate:.0f}/s"
    return [
        BenchFigure(name=f"commit → Kafka {at}, p50", value=kafka.p50, unit="ms", at_most=25),
        BenchFigure(name=f"commit → Kafka {at}, p99", value=kafka.p99, unit="ms", at_most=100),
        BenchFigure(name=f"commit → effect {at}, p50", value=effect.p50, unit="ms", at_most=80),
        BenchFigure(name=f"commit → effect {at}, p99", value=effect.p99, unit="ms", at_most=250),
    ]


def _write_steadily(seconds: float) -> float:
    """Events a second that were committed; late ones are caught up, none is left out."""
    events = round(STEADY_RATE * seconds)
    begin = time.perf_counter()
    for number in range(events):
        wait = begin + number / STEADY_RATE - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        with unit_of_work():
            publish([order_created(number)], traces=[trace(number)])
    return events / (time.perf_counter() - begin)


def idle(stage: Stage, seconds: float) -> list[BenchFigure]:
    """Processor time of all our processes while nothing happens."""
    stage.only(*OURS)
    time.sleep(65.0)  # audit and purge have seen what was written before
    before = stage.cpu_seconds()
    time.sleep(seconds)
    share = 100 * (stage.cpu_seconds() - before) / seconds
    return [
        BenchFigure(
            name="idle: all our processes together", value=share, unit="% of a core", at_most=5
        )
    ]


def memory(stage: Stage, events: int) -> list[BenchFigure]:
    """What each process holds after all these events, against after the first fifth."""
    stage.only(*OURS)
    part = events // 5
    held = []
    for number in range(5):
        after = stage.newest_id()
        fill(part, start=number * part)
        stage.wait_applied(after)
        held.append(stage.memory())
    return [
        BenchFigure(
            name=f"memory of {name} after {events:,} events, against after {part:,}",
            value=100 * held[-1][name] / held[0][name],
            unit="%",
            at_most=115,
            note=f"{', '.join(f'{each[name] / 2**20:.0f}' for each in held)} MiB, after each fifth",
        )
        for name in OURS
    ]
