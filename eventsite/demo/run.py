"""The demo itself: load, load under kills, and the account."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from urllib.request import urlopen

from django.db import DatabaseError, connection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eventsite.demo import measure
from eventsite.demo.faults import Faults, kill_everything
from eventsite.demo.load import LoadPlan, LoadResult, run_load
from eventsite.demo.report import Line, print_report
from eventsite.localstack import LocalStack
from eventsite.probe import queries as probe_queries
from eventsite.probe import services as probe_services
from eventsite.recount import compare

__all__ = ["run"]

SETTLE_SECONDS = 60.0
PROBE_INTERVAL = 0.1
WARM_UP_READS = 120
HOT_KEYS = [f"hot-{number}" for number in range(8)]
COLD_KEYS = 1000


@dataclass(frozen=True, slots=True)
class _Phase:
    result: LoadResult
    since: datetime
    until: datetime
    settled: measure.Counts
    settle_seconds: float


def run(stack: LocalStack, *, orders: int, rate: float, console: Console) -> bool:
    """Both halves and the table; whether every promise was kept."""
    if measure.counts().events or measure.count_in_kafka().messages:
        console.print(
            "[red]The demo counts everything there is: give it an empty database and Kafka.[/]"
        )
        return False
    _warm_up(stack)
    faults = Faults()
    console.print(f"\n[bold]1.[/] {orders} orders at {rate:.0f}/s, nothing disturbed")
    calm = _phase(stack, LoadPlan(orders=orders, rate=rate, seed=1), console)
    calm_duplicates = measure.count_in_kafka().duplicates
    console.print(f"\n[bold]2.[/] {orders} more while processes are killed")
    rough = _phase(stack, LoadPlan(orders=orders, rate=rate, seed=2), console, faults)
    lines = _account(calm, rough, faults, calm_duplicates)
    console.print()
    return print_report(console, lines)


def _warm_up(stack: LocalStack) -> None:
    """Processes that have just started are slow at first; the probe takes them all in."""
    with _probe_load():
        for _ in range(WARM_UP_READS):
            with urlopen(f"{stack.base_url}/orders", timeout=10) as answer:  # noqa: S310
                answer.read()
            time.sleep(0.02)
    measure.settle(SETTLE_SECONDS)


def _phase(
    stack: LocalStack, plan: LoadPlan, console: Console, faults: Faults | None = None
) -> _Phase:
    since = measure.database_now()
    with _progress(plan, console) as progress, _probe_load():
        killer = None
        if faults is not None:
            killer = threading.Thread(
                target=kill_everything,
                args=(stack, faults),
                kwargs={"say": progress.console.print},
                daemon=True,
            )
            killer.start()
        task = progress.add_task("orders answered", total=plan.orders)
        result = asyncio.run(
            run_load(
                stack.base_url,
                plan,
                on_progress=lambda r: progress.update(task, completed=r.placed),
            )
        )
        progress.update(task, completed=result.placed)
        if killer is not None:
            killer.join()
    until = measure.database_now()
    started = time.monotonic()
    settled = measure.settle(SETTLE_SECONDS)
    seconds = time.monotonic() - started
    console.print(f"every effect there {seconds:.1f} s after the last answer")
    return _Phase(result, since, until, settled, seconds)


@contextmanager
def _progress(plan: LoadPlan, console: Console) -> Iterator[Progress]:
    """Live bars: orders answered, and effects applied of the events committed so far."""
    columns = (
        TextColumn("{task.description:>16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    stop = threading.Event()
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("events applied", total=None)

        def watch() -> None:
            while not stop.wait(0.5):
                try:
                    found = measure.counts()
                except DatabaseError:
                    continue
                progress.update(task, total=found.events, completed=found.applied)
            connection.close()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield progress
        finally:
            stop.set()
            watcher.join()


@contextmanager
def _probe_load() -> Iterator[None]:
    """The probe's keyed events beside the orders: eight hot keys, a thousand cold ones."""
    stop = threading.Event()
    chooser = random.Random(3)  # noqa: S311  (a repeatable choice, not a secret)

    def draw() -> None:
        while not stop.wait(PROBE_INTERVAL):
            cold = f"cold-{chooser.randrange(COLD_KEYS)}"
            probe_services.draw([*chooser.sample(HOT_KEYS, 2), cold])
        connection.close()

    drawer = threading.Thread(target=draw, daemon=True)
    drawer.start()
    try:
        yield
    finally:
        stop.set()
        drawer.join()


def _account(calm: _Phase, rough: _Phase, faults: Faults, calm_duplicates: int) -> list[Line]:
    found = rough.settled
    placed = [answer for phase in (calm, rough) for answer in phase.result.accepted()]
    changes = [
        answer
        for phase in (calm, rough)
        for operation in ("pay", "cancel")
        for answer in phase.result.accepted(operation)
    ]
    simple = sum(answer.status == 200 for answer in placed)
    sent = calm.result.sent + rough.result.sent
    missing = _not_committed([answer.order_id for answer in placed])
    order = probe_queries.verdict()
    expected = len(placed) + simple + len(changes) + order.drawn
    kafka = measure.count_in_kafka()
    figures = compare()
    duplicate_effects = (found.processed_events - simple) + order.duplicates
    caught = faults.caught_events
    post = measure.percentiles([1000 * a.latency for a in calm.result.accepted()])
    rough_post = measure.percentiles([1000 * a.latency for a in rough.result.accepted()])
    return [
        Line("orders sent", f"{sent}", None, "both bodies mixed, arrivals by the clock"),
        Line("accepted", f"{len(placed)}", len(placed) == sent, "answered 200 or 201"),
        Line(
            "committed",
            f"{found.orders}",
            not missing and found.orders == len(placed),
            f"{len(missing)} accepted orders missing; {len(changes)} payments and cancellations",
        ),
        Line(
            "events committed",
            f"{found.events}",
            found.events == expected,
            f"{order.drawn} of them the probe's",
        ),
        Line(
            "published",
            f"{found.published}",
            found.published == found.events,
            "settled in the outbox",
        ),
        Line(
            "in Kafka",
            f"{kafka.distinct}",
            kafka.distinct == found.events,
            "distinct event ids, read back",
        ),
        Line("effects applied", f"{found.applied}", found.applied == found.events, "receipts"),
        Line("lost", f"{found.events - found.applied}", found.events == found.applied),
        Line(
            "duplicate effects",
            f"{duplicate_effects}",
            duplicate_effects == 0,
            "rows and log entries",
        ),
        Line(
            "order violations",
            f"{order.violations}",
            order.ok,
            f"{order.applied} entries of the probe's log, {order.lost} lost, "
            f"{order.duplicates} twice",
        ),
        Line(
            "duplicates in Kafka",
            f"{kafka.duplicates}",
            calm_duplicates == 0 and kafka.duplicates <= (caught or 0),
            f"{calm_duplicates} before the kills; the drain died with {caught} events in hand, and "
            "what it had sent of them went out again: the inbox drops such repetitions",
        ),
        Line(
            "drain killed in a batch",
            "yes" if caught else "no",
            bool(caught),
            ", ".join(faults.done) + " each died by SIGKILL",
        ),
        Line(
            "figures",
            f"{figures.figures}",
            not figures.different and not figures.under_way,
            f"{figures.different} differ from the recount of the orders table",
        ),
        Line("POST /orders", str(post), None, f"with kills: {rough_post}"),
        Line(
            "commit → Kafka",
            str(measure.commit_to_kafka(calm.since, calm.until)),
            None,
            f"with kills: {measure.commit_to_kafka(rough.since, rough.until)}",
        ),
        Line(
            "commit → figures",
            str(measure.commit_to_effect("record_sales", calm.since, calm.until)),
            None,
            f"with kills: {measure.commit_to_effect('record_sales', rough.since, rough.until)}",
        ),
    ]


def _not_committed(order_ids: list[str]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT accepted.id FROM unnest(%s::uuid[]) AS accepted (id)
            WHERE NOT EXISTS (SELECT FROM orders WHERE orders.id = accepted.id)
            """,
            (order_ids,),
        )
        return [str(row[0]) for row in cursor.fetchall()]
