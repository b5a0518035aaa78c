"""The demo itself: load, load under kills, and what is observed of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from rich.console import Console

from devtools.demo import feeds, notifications
from devtools.demo.account import FeedsAccount, Half, Observations, account, conclusion
from devtools.demo.background import Background, event_progress, probe_load
from devtools.demo.faults import Faults, kill_everything
from devtools.demo.orders import LoadPlan, LoadResult, run_load
from devtools.demo.relay import relay_lines
from devtools.demo.report import print_report
from devtools.feeders.history import FeedHistory
from devtools.localstack import LocalStack
from devtools.probe import queries as probe_queries
from devtools.testing import measure
from eventsite.reports.recount import compare
from orders.events import STOCK_TOPIC

__all__ = ["run"]

SETTLE_SECONDS = 60.0
WARM_UP_READS = 120


@dataclass(frozen=True, slots=True)
class _Phase:
    result: LoadResult
    drawn: int
    fed: FeedHistory
    since: datetime
    until: datetime


def run(stack: LocalStack, *, orders: int, rate: float, port: int, console: Console) -> bool:
    """Both halves, the notifications and the table; the provider listens on `port`; whether every promise was kept."""
    if measure.counts().events or measure.count_in_kafka().messages:
        console.print(
            "[red]The demo counts everything there is: give it an empty database and Kafka.[/]"
        )
        return False
    if not (warm := _warm_up(stack)).settled:
        console.print(f"[red]The stack does not work: after the warm-up {_unsettled(warm)}.[/]")
        return False
    faults = Faults()
    console.print(f"\n[bold]1.[/] {orders} orders at {rate:.0f}/s, nothing disturbed")
    calm, _ = _phase(stack, LoadPlan(orders=orders, rate=rate, seed=1), console)
    calm_duplicates = measure.count_in_kafka().duplicates
    console.print(f"\n[bold]2.[/] {orders} more while processes are killed")
    rough, found = _phase(stack, LoadPlan(orders=orders, rate=rate, seed=2), console, faults)
    faults.others = Counter(stack.restarts) - Counter(faults.done)
    console.print("\nevery feed is read to its first post and compared with the truth")
    fed = feeds.observe(stack.base_url, [calm.fed, rough.fed])
    seen = _observe(calm, rough, found, faults, calm_duplicates=calm_duplicates, fed=fed)
    console.print("\n[bold]3.[/] notifications, whose provider refuses one in ten and dies once")
    with TemporaryDirectory() as directory:
        sent = notifications.send(stack, Path(directory, "arrivals"), port=port, say=console.print)
    lines = [*account(seen), *notifications.lines_of(sent), *relay_lines(stack, console)]
    console.print()
    return print_report(console, lines, conclusion(seen, lines))


def _warm_up(stack: LocalStack) -> measure.Counts:
    """Processes that have just started are slow at first; the probe takes them all in."""
    with probe_load():
        for _ in range(WARM_UP_READS):
            with urlopen(f"{stack.base_url}/orders", timeout=10) as answer:  # noqa: S310
                answer.read()
            time.sleep(0.02)
    return measure.settle(SETTLE_SECONDS)


def _phase(
    stack: LocalStack, plan: LoadPlan, console: Console, faults: Faults | None = None
) -> tuple[_Phase, measure.Counts]:
    """One half, and what there is once its events have taken effect."""
    since = measure.database_now()
    with event_progress(console) as progress:
        task = progress.add_task("orders answered", total=plan.orders)
        with probe_load() as drawn, feeds.load(stack.base_url, seed=plan.seed) as fed:
            killer = None
            if faults is not None:
                say = progress.console.print
                killer = Background(partial(kill_everything, stack, faults, say=say))
            result = run_load(
                stack.base_url,
                plan,
                on_progress=lambda r: progress.update(task, completed=r.placed),
            )
            if killer is not None:
                killer.finish()
        until = measure.database_now()
        found, sentence = _settle()
    console.print(sentence)
    return _Phase(result, drawn.numbers, fed, since, until), found


def _settle() -> tuple[measure.Counts, str]:
    """What there is once everything is applied or too long has been waited, and a sentence."""
    started = time.monotonic()
    found = measure.settle(SETTLE_SECONDS)
    seconds = time.monotonic() - started
    if found.settled:
        return found, f"every event had taken effect {seconds:.1f} s after the last answer"
    return found, f"[red]{seconds:.0f} s after the last answer {_unsettled(found)}[/]"


def _unsettled(found: measure.Counts) -> str:
    return (
        f"not every event has taken effect: {found.events} committed, "
        f"{found.published} published, {found.applied} of {found.heard} applied"
    )


def _observe(
    calm: _Phase,
    rough: _Phase,
    found: measure.Counts,
    faults: Faults,
    *,
    calm_duplicates: int,
    fed: FeedsAccount,
) -> Observations:
    placed = [answer.order_id for half in (calm, rough) for answer in half.result.accepted()]
    return Observations(
        calm=_half(calm),
        rough=_half(rough),
        counts=found,
        stock=measure.count_of_topic(STOCK_TOPIC.name),
        missing=measure.count_missing(placed),
        order=probe_queries.verdict(),
        kafka=measure.count_in_kafka(),
        calm_duplicates=calm_duplicates,
        figures=compare(),
        feeds=fed,
        killed=tuple(faults.done),
        others=faults.others,
        caught_events=faults.caught_events,
    )


def _half(phase: _Phase) -> Half:
    placed = phase.result.accepted()
    changes = phase.result.changes()
    return Half(
        sent=phase.result.sent,
        accepted=len(placed),
        simple=sum(answer.status == 200 for answer in placed),
        changes_attempted=len(changes),
        changes_answered=sum(answer.status == 200 for answer in changes),
        operations=Counter(answer.operation for answer in changes),
        stock=phase.result.stock_events(),
        drawn=phase.drawn,
        post=measure.percentiles([1000 * answer.latency for answer in placed]),
        to_kafka=measure.commit_to_kafka(phase.since, phase.until),
        to_figures=measure.commit_to_effect("record_sales", phase.since, phase.until),
    )
