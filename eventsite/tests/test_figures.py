"""The figures equal the recount after any delivery: repeated, interleaved, interrupted, redriven.

Orders are placed and changed by the real services. What they published lies in a log of two
partitions, with the repetitions that a drain leaves which died; the chunks of it go through the real
machinery of effects, inbox and dead letters, in any order of the partitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from django.core.management import call_command
from django.db import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import services as analytics
from analytics.models import (
    ForeignSalesMetric,
    SalesAddition,
    SalesFigure,
    SalesMetric,
    SetAsideFigure,
)
from devtools.testing.histories import cancel, envelope, order_events, pay, place, ship
from eventsite.reports.recount import compare
from orders.models import Order, OrderChange, OrderLine
from outbox import conf
from outbox.dead_letters import redrive
from outbox.envelope import EventEnvelope
from outbox.handlers import isolate
from outbox.inbox import receipts, time_limit
from outbox.inbox.chunk import Chunk
from outbox.models import (
    BridgePosition,
    DeadLetter,
    DeadLetterAction,
    HandlerControl,
    InboxReceipt,
    OutboxEvent,
)
from outbox.tests.letters import HANDLER, TOPIC, TOPIC_ID, make_due, redrive_due, run

pytestmark = pytest.mark.django_db

PARTITIONS = 2
NOON = datetime.now(UTC).replace(hour=23, minute=59, second=30, microsecond=0) - timedelta(days=2)
CHANGES = {"pay": pay, "ship": ship, "cancel": cancel}
WAYS = ((), ("pay",), ("pay", "ship"), ("cancel",), ("pay", "cancel"))
TABLES = (
    *(OrderChange, OrderLine, Order, OutboxEvent, InboxReceipt, BridgePosition),
    *(DeadLetterAction, DeadLetter, HandlerControl, SalesMetric, SalesAddition),
    *(ForeignSalesMetric, SetAsideFigure),
)


@dataclass(frozen=True)
class Wanted:
    """An order and what becomes of it; without lines a simple one."""

    seconds: int
    amount: str
    lines: tuple[tuple[str, int, str], ...]
    way: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One thing that happens to a partition's next `size` messages.

    deliver  they are applied            crash   the worker dies before its transaction commits
    poison   one of them fails from here on, until the next redrive
    again    they are applied and then sent once more, as if nobody knew
    stale    what was applied long ago is sent again, from the first offset on
    redrive  what failed does no longer, and is tried again
    fold     what was added is folded, as beat has it done
    """

    kind: str
    partition: int
    size: int


@dataclass
class Worker:
    """The real effect, which can die after it has written, and fail for some events."""

    dies: bool = False
    poison: set[UUID] = field(default_factory=set)

    def __call__(self, events: Sequence[EventEnvelope]) -> None:
        analytics.record_sales(events)
        if self.dies:
            self.dies = False
            raise OperationalError from psycopg.errors.AdminShutdown()
        if self.poison & {event.event_id for event in events}:
            raise ValueError("poison")


money = st.integers(0, 999_999_999_999).map(lambda cents: f"{cents // 100}.{cents % 100:02}")
lines = st.tuples(st.sampled_from(["p1", "p2", "all", "PAID"]), st.integers(1, 10_000), money)
wanted = st.builds(
    Wanted,
    seconds=st.integers(0, 90),
    amount=money,
    lines=st.lists(lines, max_size=3).map(tuple),
    way=st.sampled_from(WAYS),
)
kinds = st.sampled_from(["deliver", "crash", "poison", "again", "stale", "redrive", "fold"])
steps = st.builds(
    Step, kind=kinds, partition=st.integers(0, PARTITIONS - 1), size=st.integers(1, 6)
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All examples are one transaction: the time limit of an effect would end all of it."""
    for module in (time_limit, isolate, redrive):
        monkeypatch.setattr(module, "BRIDGE", replace(conf.BRIDGE, effect_timeout=600.0))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_figures_equal_the_recount_whatever_happens_on_the_way(data: st.DataObject) -> None:
    _forget_everything()
    logs = _logs(_live(data.draw(st.lists(wanted, min_size=1, max_size=6)), data), data)
    worker = Worker()
    for step in data.draw(st.lists(steps, max_size=12)):
        _take(step, logs[step.partition], worker)
        assert compare().differences == []  # also half-way, counted as far as it has come
    _settle(logs, worker)
    out = StringIO()
    call_command("check_sales_metrics", stdout=out)  # raises for a difference
    assert out.getvalue().endswith("0 events are under way.\n")
    applied = InboxReceipt.objects.filter(outcome=InboxReceipt.Outcome.APPLIED).count()
    assert applied == OrderChange.objects.count()


def _forget_everything() -> None:
    for table in TABLES:
        table.objects.all().delete()


def _live(orders: Sequence[Wanted], data: st.DataObject) -> list[UUID]:
    """Place all, then change them in a mixed order, each its own way; their ids."""
    ids = [
        place(
            at=NOON + timedelta(seconds=order.seconds),
            lines=order.lines,
            amount=None if order.lines else order.amount,
        )
        for order in orders
    ]
    waiting = [list(order.way) for order in orders]
    turns = [number for number, order in enumerate(orders) for _ in order.way]
    for number in data.draw(st.permutations(turns)):
        CHANGES[waiting[number].pop(0)](ids[number])
    return ids


def _logs(orders: Sequence[UUID], data: st.DataObject) -> list[list[EventEnvelope]]:
    """Each partition's messages, some runs twice: the drain died before it had settled them. The
    orders take turns, so that an example does not depend on the ids that were drawn."""
    partitions = {str(order_id): number % PARTITIONS for number, order_id in enumerate(orders)}
    logs: list[list[EventEnvelope]] = [[] for _ in range(PARTITIONS)]
    for event in order_events():
        log = logs[partitions[event.key]]
        log.append(envelope(event))
        repeated = data.draw(st.integers(-4, 3))
        if repeated > 0:
            log.extend(log[-repeated:])
    for partition in range(PARTITIONS):
        BridgePosition.objects.create(
            handler=HANDLER, topic=TOPIC, partition=partition, topic_id=TOPIC_ID, next_offset=0
        )
    return logs


def _take(step: Step, log: Sequence[EventEnvelope], worker: Worker) -> None:
    if step.kind == "redrive":
        _redrive(worker)
        return
    if step.kind == "fold":
        analytics.fold_additions()
        return
    chunk = _next_chunk(step.partition, log, step.size)
    match step.kind:
        case "stale":
            chunk = _chunk(step.partition, log, 0, step.size)
        case "crash":
            worker.dies = True
        case "poison" if chunk.events:
            worker.poison.add(chunk.events[-1][1].event_id)
    if chunk.events:
        run(worker, chunk)
    if step.kind == "again" and chunk.events:
        run(worker, chunk)
    worker.dies = False


def _next_chunk(partition: int, log: Sequence[EventEnvelope], size: int) -> Chunk:
    position = BridgePosition.objects.get(handler=HANDLER, partition=partition)
    return _chunk(partition, log, position.next_offset, size)


def _chunk(partition: int, log: Sequence[EventEnvelope], first: int, size: int) -> Chunk:
    events = tuple(enumerate(log))[first : first + size]
    return Chunk(TOPIC, TOPIC_ID, partition, first, first + len(events), events)


def _redrive(worker: Worker) -> None:
    worker.poison.clear()
    make_due()
    while redrive_due(worker):
        make_due()


def _settle(logs: Sequence[Sequence[EventEnvelope]], worker: Worker) -> None:
    worker.poison.clear()
    for partition, log in enumerate(logs):
        while (chunk := _next_chunk(partition, log, 5)).events:
            run(worker, chunk)
    _redrive(worker)


@pytest.mark.parametrize("guarded", [True, False])
def test_without_receipts_a_repetition_is_counted_twice(
    monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """That the property above can fail: the same delivery with and without the guard."""
    place(at=NOON, lines=[("p1", 2, "0.10")])
    [event] = [envelope(event) for event in order_events()]
    BridgePosition.objects.create(
        handler=HANDLER, topic=TOPIC, partition=0, topic_id=TOPIC_ID, next_offset=0
    )
    if not guarded:
        monkeypatch.setattr(receipts, "insert_receipts", lambda _, ids: set(ids))
    worker = Worker()
    run(worker, _chunk(0, [event, event], 0, 1))
    run(worker, _chunk(0, [event, event], 1, 1))
    [units] = SalesFigure.objects.filter(metric_name="top_products").values_list("value", flat=True)
    assert units == (2 if guarded else 4)


def test_bad_events_of_others_are_dead_letters_and_hold_up_no_figure() -> None:
    """A name that no index takes, and an amount that no figure holds, between events of ours: they
    were applied once, and then failed every fold."""
    for number in range(3):
        place(at=NOON, lines=[(f"p{number}", 2, "0.10")])
    ours = [envelope(event) for event in order_events()]
    payload = ours[0].payload
    theirs = [
        msgspec.structs.replace(ours[0], event_id=uuid4(), key=f"theirs-{number}", payload=bad)
        for number, bad in enumerate(
            (
                payload.replace('"productId":"p0"', f'"productId":"{"p" * 4000}"'),
                payload.replace('"totalPrice":0.2', '"totalPrice":9999999999999999999999999999'),
                payload.replace('"price":0.1', '"price":0.105'),
                payload.replace(f'"createdAt":"{NOON:%Y}', '"createdAt":"2026-13-45'),
                payload.replace('"productId":"p0"', '"productId":"theirs"'),
            )
        )
    ]
    assert len({event.payload for event in (*ours, *theirs)}) == 8
    BridgePosition.objects.create(
        handler=HANDLER, topic=TOPIC, partition=0, topic_id=TOPIC_ID, next_offset=0
    )
    log = [theirs[0], ours[0], theirs[1], theirs[2], ours[1], theirs[3], theirs[4], ours[2]]
    assert run(analytics.record_sales, _chunk(0, log, 0, len(log))) == 4
    parked = DeadLetter.objects.order_by("offset").values_list("event_id", flat=True)
    assert list(parked) == [event.event_id for event in theirs[:4]]
    assert analytics.fold_additions() > 0
    assert not SalesAddition.objects.exists()
    found = compare()
    assert (found.different, found.under_way) == (0, 0)
    assert found.foreign_figures == 6  # of the good one
    call_command("check_sales_metrics", stdout=StringIO())
