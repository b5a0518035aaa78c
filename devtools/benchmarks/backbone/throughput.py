"""Backlogs at full speed: the drain alone, the effects alone, both at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from django.db import connection

from devtools.benchmarks.backbone import ceilings
from devtools.benchmarks.backbone.events import fill
from devtools.benchmarks.backbone.stage import Stage
from devtools.benchmarks.report import BenchFigure
from outbox.drain.run import Drain
from outbox.lanes import pause
from outbox.process.gc_tuning import tune_gc
from outbox.topics import LANES

__all__ = ["both_at_once", "drain_alone", "effects_alone", "held_snapshot", "statements"]

BUSY_SECONDS = 600.0


def drain_alone(stage: Stage, events: int) -> list[BenchFigure]:
    """One drain in this process, against a bare producer loop and a bare INSERT loop."""
    stage.only()
    tune_gc()  # as the worker does
    insert = ceilings.insert_rate(stage.database_url, events)
    with ceilings.scratch_topic(stage.brokers) as topic:
        produce = ceilings.produce_rate(stage.brokers, topic, events)
    begin = time.perf_counter()
    fill(events)
    published = events / (time.perf_counter() - begin)
    stage.analyze()
    _drain_all()  # nothing is left of the fill but the producer's warm-up is done
    rates = sorted(_drain_rate(stage, events, number) for number in range(1, 4))
    return [
        BenchFigure(
            name=f"publish, {events:,} events by 1,000",
            value=published,
            unit="events/s",
            ceiling=insert,
            note="ceiling: bare INSERT … unnest of as many rows",
        ),
        BenchFigure(
            name=f"drain, backlog of {events:,}, one drain",
            value=rates[1],
            unit="events/s",
            at_least=30_000,
            ceiling=produce,
            note=f"median of three: {', '.join(f'{rate:,.0f}' for rate in rates)}; ceiling: bare"
            " librdkafka loop, acks=all, idempotent, same value and headers",
        ),
    ]


def _drain_rate(stage: Stage, events: int, number: int) -> float:
    fill(events, start=number * events)
    stage.analyze()
    begin = time.perf_counter()
    settled = _drain_all()
    return settled / (time.perf_counter() - begin)


def _drain_all() -> int:
    return Drain().run(seconds=BUSY_SECONDS).settled


def effects_alone(stage: Stage, events: int) -> list[BenchFigure]:
    """The log is full, then bridge and workers start."""
    stage.only("worker-effects", "bridge")
    stage.wait_applied(0)
    stage.only("worker-effects")
    tasks = ceilings.empty_tasks_rate(stage.stack.env["REDIS_URL"], 3000)
    with ceilings.scratch_topic(stage.brokers) as topic:
        ceilings.produce_rate(stage.brokers, topic, events)
        consume = ceilings.consume_rate(stage.brokers, topic, events)
    after = stage.newest_id()
    fill(events)
    _drain_all()
    stage.analyze()
    stage.start("bridge")
    stage.wait_applied(after)
    seen = stage.moments(after)
    assert seen.applied_first
    assert seen.applied_last
    seconds = (seen.applied_last - seen.applied_first).total_seconds()
    return [
        BenchFigure(
            name=f"Kafka → sales figures, backlog of {seen.events:,}, two worker processes",
            value=seen.events / seconds,
            unit="events/s",
            at_least=25_000,
            ceiling=consume,
            note="ceiling: bare consume loop",
        ),
        BenchFigure(name="empty Celery tasks, two worker processes", value=tasks, unit="tasks/s"),
    ]


def both_at_once(stage: Stage, events: int) -> list[BenchFigure]:
    """A committed backlog through drain, Kafka, bridge and effects, all running."""
    _run_all(stage)
    rate = _both(stage, events)
    return [
        BenchFigure(
            name=f"commit → effect, backlog of {events:,}, everything at once",
            value=rate,
            unit="events/s",
            at_least=12_000,
        )
    ]


def _run_all(stage: Stage) -> None:
    stage.start("worker-outbox", "worker-effects", "beat", "bridge")
    stage.wait_applied(0)


def _both(stage: Stage, events: int) -> float:
    """Events a second from the first publication to the last effect."""
    return _release(stage, _paused_backlog(stage, events))


@dataclass(frozen=True, slots=True)
class _Backlog:
    events: int
    after_id: int
    passed: int  # messages, before it


def _paused_backlog(stage: Stage, events: int) -> _Backlog:
    """Fill one while all lanes are paused; a drain keeps what it knows."""
    backlog = _Backlog(events, stage.newest_id(), stage.passed())
    pause.pause_lanes(range(LANES), reason="a backlog is filled", by="bench")
    fill(events)
    return backlog


def _release(stage: Stage, backlog: _Backlog) -> float:
    """Let it go, and wait for its last effect; its events a second."""
    pause.resume_lanes(range(LANES))
    stage.wait_passed(backlog.passed + backlog.events)
    seen = stage.moments(backlog.after_id)
    assert seen.events == backlog.events
    assert seen.published_first
    assert seen.applied_last
    return seen.events / (seen.applied_last - seen.published_first).total_seconds()


def statements(stage: Stage, events: int) -> list[BenchFigure]:
    """What PostgreSQL's log says it was asked at full speed, BEGIN and COMMIT counted."""
    _run_all(stage)
    backlog = _paused_backlog(stage, events)
    with stage.statements() as counted:
        _release(stage, backlog)
    drained, applied = counted["worker-outbox"], counted["worker-effects"]
    return [
        BenchFigure(
            name="SQL statements of the drain",
            value=drained / events,
            unit="per event",
            at_most=0.01,
        ),
        BenchFigure(
            name="SQL statements of the effects, one handler",
            value=applied / events,
            unit="per event",
            at_most=0.02,
        ),
    ]


def held_snapshot(stage: Stage, events: int, seconds: float) -> list[BenchFigure]:
    """The same backlog again and again: with nothing, a reader's snapshot, a writer's transaction
    held open elsewhere, each for as long, so that audit and vacuum have as much to do."""
    _run_all(stage)
    without = _late_rate(stage, events, seconds)
    with _held_open(stage.database_url):
        reader = _late_rate(stage, events, seconds)
    with _held_open(stage.database_url, writes=True):
        writer = _late_rate(stage, events, seconds)
    return [
        BenchFigure(
            name=f"rate after {seconds:.0f} s under a reader's snapshot",
            value=100 * reader / without,
            unit="% of without",
            at_least=80,
            note=f"without: {without:,.0f} events/s after as long; medians of the last third",
        ),
        BenchFigure(
            name=f"rate after {seconds:.0f} s under a writer's transaction",
            value=100 * writer / without,
            unit="% of without",
        ),
    ]


@contextmanager
def _held_open(database_url: str, *, writes: bool = False) -> Iterator[None]:
    """A transaction that is somewhere in its middle."""
    with psycopg.connect(database_url) as held:
        held.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        held.execute("SELECT count(*) FROM outbox_lane")
        if writes:  # an open publisher: no drain may raise a floor over the id it has drawn
            held.execute(
                "INSERT INTO event_outbox (event_id, lane, topic, key, type, source, payload,"
                " traceparent, correlation_id)"
                " VALUES (gen_random_uuid(), 0, 'order-events', 'held', 'HELD', '/bench', '', '', '')"
            )
        yield
        held.rollback()


def _late_rate(stage: Stage, events: int, seconds: float) -> float:
    """Backlog after backlog; the median rate of those begun in the last third of so many seconds,
    because one may have all of the audit and of autovacuum beside it, or nothing. It is only one
    where a single backlog takes longer than that third."""
    stage.analyze()
    begin, late = time.monotonic(), list[float]()
    while (since := time.monotonic() - begin) < seconds or not late:
        rate = _both(stage, events)
        late += [rate] if since > seconds * 2 / 3 else []
        connection.close()
    return statistics.median(late)
