"""Floors: dead entries are not passed again, and no row is ever left below one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, transaction

from devtools.testing.patience import PATIENCE
from outbox import metrics
from outbox.conf import DRAIN
from outbox.database import jobs
from outbox.drain.run import Drain
from outbox.lanes import floors, pause
from outbox.models import OutboxEvent, OutboxLane
from outbox.publish.events import publish
from outbox.tests.test_drain import Kafka, Noted, kafka
from outbox.topics import LANES, lane_of
from outbox.upkeep import gauges

__all__ = ["kafka"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("kafka")]

EAGER = replace(DRAIN, floor_interval=0.0, sweep_interval=1e9)
LANE = lane_of("k")


def write(*texts: str) -> None:
    with transaction.atomic():
        publish([Noted("k", text) for text in texts])


@pytest.fixture
def drain() -> Drain:
    return Drain(EAGER)


def floor(drain: Drain) -> int:
    return drain.state.floors._floors[LANE]


def raised(drain: Drain) -> int:
    """The floor after a drain has had time to raise it: a ceiling first, then the floor."""
    for _ in range(3):
        drain.run()
    return floor(drain)


def newest() -> int:
    return OutboxEvent.objects.latest("id").id


def in_a_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_floor_lies_behind_what_was_settled(drain: Drain, kafka: Kafka) -> None:
    write("1", "2")
    assert raised(drain) == newest() + 1
    write("3")
    assert drain.run().settled == 1
    assert [text for _, text in kafka.log] == ['"1"', '"2"', '"3"']


def overtaken(drain: Drain, writes: Callable[[], None]) -> int:
    """A writer has drawn its id and waits while a later one commits and the floors are raised;
    events that are still pending after it has committed and a drain has run."""
    drawn, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic():
            write("slow")
            drawn.set()
            assert go_on.wait(PATIENCE)

    thread = in_a_thread(slow)
    assert drawn.wait(PATIENCE)
    writes()
    raised(drain)
    go_on.set()
    thread.join()
    drain.run()
    return OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).count()


def test_no_floor_is_raised_over_an_open_writer(drain: Drain) -> None:
    assert overtaken(drain, lambda: write("fast")) == 0


def test_without_the_look_at_writers_a_row_is_left_below(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed; the sweep of each minute finds it, sends it and says so."""
    with monkeypatch.context() as changed:
        changed.setattr(floors, "open_writers", frozenset)
        assert overtaken(drain, lambda: write("fast")) == 1
    before = metrics.FLOOR_UNDERCUT._value.get()
    drain.state.floors._next_sweep = 0.0  # a minute later
    raised(drain)
    assert metrics.FLOOR_UNDERCUT._value.get() == before + 1
    assert not OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists()


@pytest.mark.parametrize("counted", [True, False])
def test_rows_made_pending_again_are_seen_if_they_are_counted(drain: Drain, counted: bool) -> None:
    write("1", "2")
    raised(drain)
    with transaction.atomic():
        if counted:
            floors.rewind([LANE])
        OutboxEvent.objects.update(status=OutboxEvent.Status.NEW)
    assert drain.run().settled == (2 if counted else 0)


def test_a_sweep_is_silent_about_rows_made_pending_again(drain: Drain) -> None:
    """They lie below floors that no longer hold."""
    write("1", "2")
    raised(drain)
    with transaction.atomic():
        floors.rewind([LANE])
        OutboxEvent.objects.update(status=OutboxEvent.Status.NEW)
    before = metrics.FLOOR_UNDERCUT._value.get()
    drain.state.floors._next_sweep = 0.0
    drain.state.floors.refresh(EAGER)
    assert metrics.FLOOR_UNDERCUT._value.get() == before
    assert drain.run().settled == 2


def test_a_sweep_is_silent_about_a_lane_that_is_behind_the_others(
    drain: Drain, kafka: Kafka
) -> None:
    """Its floor is its first pending row, however high those of the others are."""
    pause.pause_lanes([LANE], reason="behind", by="test")
    write("1", "2")
    other = next(f"key-{n}" for n in range(LANES * 9) if lane_of(f"key-{n}") != LANE)
    with transaction.atomic():
        publish([Noted(other)])
    before = metrics.FLOOR_UNDERCUT._value.get()
    raised(drain)
    drain.state.floors._next_sweep = 0.0
    raised(drain)
    assert floor(drain) < newest() < max(drain.state.floors._floors)
    assert metrics.FLOOR_UNDERCUT._value.get() == before
    pause.resume_lanes([LANE])
    assert drain.run().settled == 2


def left_below(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pending row lies below the floor of its lane, which is paused."""
    with monkeypatch.context() as changed:
        changed.setattr(floors, "open_writers", frozenset)
        assert overtaken(drain, lambda: write("fast")) == 1
    pause.pause_lanes([LANE], reason="so that nobody sends it", by="test")
    drain.state.floors._next_sweep = 0.0
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM outbox_upkeep WHERE name = 'sweep'")


def test_what_a_sweep_finds_is_seen_by_who_only_counts(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_below(drain, monkeypatch)
    counting = floors.Floors(sweeps=False)
    backlog = gauges.Backlog()
    monkeypatch.setattr(backlog, "floors", counting)
    monkeypatch.setattr(gauges, "_backlog", backlog)
    gauges.measure_outbox()
    counting._floors[LANE] = floor(drain)
    counting._next_sweep = 0.0
    for _ in range(3):
        counting.refresh(EAGER)
    assert backlog.pending(10)[0] == 0
    raised(drain)
    assert backlog.pending(10)[0] == 1


def test_a_look_without_floors_is_no_sweep(drain: Drain) -> None:
    """It would say that all is well where nobody has looked."""
    write("1")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM outbox_upkeep WHERE name = 'sweep'")
    for _ in range(2):  # a ceiling, then the floors
        drain.state.floors.refresh(EAGER)
    assert "sweep" not in jobs.ages()
    drain.state.floors.refresh(EAGER)
    assert "sweep" in jobs.ages()


def test_a_sweep_needs_no_kafka(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    left_below(drain, monkeypatch)
    before = metrics.FLOOR_UNDERCUT._value.get()
    monkeypatch.setattr(drain, "_not_ready", lambda: "away")
    raised(drain)
    assert metrics.FLOOR_UNDERCUT._value.get() == before + 1
    assert "sweep" in jobs.ages()


def test_a_sweep_that_takes_long_is_given_up_and_comes_again(
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left_below(drain, monkeypatch)
    hasty = replace(EAGER, sweep_seconds=0.3)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            list(OutboxLane.objects.select_for_update().filter(lane=LANE))
            held.set()
            assert let_go.wait(PATIENCE)

    before = metrics.FLOOR_UNDERCUT._value.get()
    thread = in_a_thread(hold)
    assert held.wait(PATIENCE)
    for _ in range(3):
        drain.state.floors.refresh(hasty)
    let_go.set()
    thread.join()
    assert metrics.FLOOR_UNDERCUT._value.get() == before
    assert "sweep" not in jobs.ages()
    drain.state.floors._next_sweep = 0.0  # a minute later
    raised(drain)
    assert metrics.FLOOR_UNDERCUT._value.get() == before + 1


def test_a_sweep_reads_page_by_page(drain: Drain) -> None:
    """Along the index each dead entry would be a visit of its own."""
    write("1", "2")
    plans: list[str] = []

    def explained(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if "WITH below" in sql:
            with context["connection"].connection.cursor() as cursor:
                plans.extend(row[0] for row in cursor.execute(f"EXPLAIN {sql}", params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explained):
        raised(drain)
    assert any("Bitmap Heap Scan on event_outbox" in line for line in plans), plans


def test_another_session_begins_from_zero(drain: Drain) -> None:
    """It may lead to a server that was set back in time, where ids begin lower."""
    write("1")
    assert raised(drain) > 0
    connection.close()
    drain.state.floors.refresh(DRAIN)
    assert drain.state.floors._floors == [0] * LANES


def test_every_lane_has_its_floor(drain: Drain, kafka: Kafka) -> None:
    with transaction.atomic():
        publish([Noted(f"key-{number}") for number in range(300)])
    raised(drain)
    assert set(drain.state.floors._floors) == {newest() + 1}
    assert OutboxLane.objects.count() == LANES
    assert len(kafka.log) == 300


@pytest.mark.parametrize("warm", [True, False], ids=["connected", "connecting anew"])
def test_a_lane_more_than_the_code_knows_has_none(drain: Drain, warm: bool) -> None:
    """A drain looks for it when it connects; floors that were due before that must not end it."""
    write("1")
    assert raised(drain) == newest() + 1
    OutboxLane.objects.create(lane=LANES)
    write("2")
    drain.state.connected = warm
    reports = [drain.run() for _ in range(3)]
    assert floor(drain) == newest() + (1 if warm else 0)
    assert ("outbox_lane holds" in reports[0].stopped) is not warm
