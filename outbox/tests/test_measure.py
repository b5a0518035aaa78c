"""The gauges of what waits: right, and of bounded cost."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from prometheus_client.metrics import MetricWrapperBase

from outbox import conf, metrics, tasks
from outbox.audit import watch
from outbox.database import jobs
from outbox.kafka import admin
from outbox.lanes import pause
from outbox.lanes.claim import claim_lanes
from outbox.lanes.floors import Floors, rewind
from outbox.models import OutboxEvent
from outbox.tests.backbone_rows import HANDLER, LOG, TOPIC, age, positions, published, receipt
from outbox.upkeep import gauges
from outbox.upkeep.gauges import handler_lags

ROUTE = conf.route_named(HANDLER)


def value(metric: MetricWrapperBase, *labels: str) -> float:
    child: Any = metric.labels(*labels) if labels else metric
    return float(child._value.get())


@pytest.fixture(autouse=True)
def kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "topic_states", lambda _: {TOPIC: LOG})


@pytest.mark.django_db
class TestTheLagOfAHandler:
    def test_is_what_lies_behind_its_positions(self) -> None:
        positions(90)
        published([89], partition=1)
        [lag] = handler_lags([ROUTE], {TOPIC: LOG})
        assert (lag.events, lag.oldest_seconds, lag.unread) == (12 * 9, 0.0, 0)

    def test_names_partitions_that_it_has_no_position_on(self) -> None:
        positions(90)
        added = replace(LOG, earliest={**LOG.earliest, 12: 0}, latest={**LOG.latest, 12: 7})
        assert [lag.unread for lag in handler_lags([ROUTE], {TOPIC: added})] == [1]
        assert [lag.unread for lag in handler_lags([ROUTE], {})] == [None]

    def test_has_the_age_of_the_oldest_unapplied(self) -> None:
        positions(90)
        published([90])
        age(1)
        published([91])
        [lag] = handler_lags([ROUTE], {})
        assert lag.events is None
        assert 3600 <= lag.oldest_seconds < 3700

    def test_knows_by_the_audit_what_is_older_than_the_newest(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        positions(90)
        published([90])
        age(1)
        watch.watch(ROUTE, {TOPIC: LOG})
        for event in published([1, 2, 3]):
            receipt(event)
        monkeypatch.setattr(gauges, "NEWEST", 2)
        assert 3600 <= handler_lags([ROUTE], {})[0].oldest_seconds < 3700

    def test_leaves_out_what_is_parked(self) -> None:
        positions(91)
        receipt(published([90])[0], outcome=1)
        age(1)
        watch.watch(ROUTE, {TOPIC: LOG})
        assert handler_lags([ROUTE], {})[0].oldest_seconds == 0.0

    def test_is_a_share_of_the_retention(self) -> None:
        positions(90)
        published([90])
        age(84)
        tasks.measure_handlers()
        assert value(metrics.HANDLER_RETENTION, HANDLER) == pytest.approx(0.5, abs=0.01)
        assert value(metrics.HANDLER_BACKLOG, HANDLER) == 108


@pytest.mark.django_db
class TestWhatNoDrainClaims:
    def waiting(self, topic: str = TOPIC, lane: int = 5) -> None:
        OutboxEvent.objects.create(
            event_id=uuid4(), lane=lane, topic=topic, key="k", type="T", source="/"
        )

    def counted(self) -> float:
        tasks.measure_handlers()
        return value(metrics.UNCLAIMABLE)

    def test_is_counted(self) -> None:
        self.waiting("elsewhere")
        self.waiting(lane=64)
        self.waiting(lane=-1)
        assert self.counted() == 3
        assert claim_lanes(16, floors=Floors()) == []

    def test_is_not_what_waits_for_its_turn(self) -> None:
        self.waiting()
        self.waiting(f"{TOPIC}.dlq")
        pause.pause_lanes([5], reason="", by="me")
        assert self.counted() == 0
        assert value(metrics.LANES_PAUSED) == 1


@pytest.mark.django_db(transaction=True)
class TestTheBacklog:
    """Counted from floors of its own: while a snapshot is held, what is settled stays in the index
    of what is pending."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gauges._backlog, "floors", Floors())
        monkeypatch.setattr(gauges, "DRAIN", replace(conf.DRAIN, floor_interval=0.0))

    def pending(self, lane: int) -> OutboxEvent:
        return OutboxEvent.objects.create(
            event_id=uuid4(), lane=lane, topic=TOPIC, key="k", type="T", source="/"
        )

    def counted(self, limit: int = gauges.BACKLOG_COUNT_LIMIT) -> float:
        for _ in range(3):  # a ceiling first, then the floors
            gauges.measure_outbox(limit)
        return value(metrics.BACKLOG)

    def test_has_the_age_of_the_oldest_of_all_lanes(self) -> None:
        self.pending(63)
        age(1)
        for lane in (1, 2, 3):
            self.pending(lane)
        assert self.counted() == 4
        assert self.counted(limit=2) == 2
        assert 3600 <= value(metrics.OLDEST_AGE) < 3700

    def test_is_right_above_the_floors_and_after_a_rewind(self) -> None:
        OutboxEvent.objects.filter(id=self.pending(5).id).update(
            status=OutboxEvent.Status.PUBLISHED
        )
        waiting = self.pending(6)
        assert self.counted() == 1
        assert gauges._backlog.floors._floors[5] == waiting.id + 1
        assert gauges._backlog.floors._floors[6] == waiting.id
        self.pending(5)
        assert self.counted() == 2
        with transaction.atomic():
            rewind([5])
            OutboxEvent.objects.update(status=OutboxEvent.Status.NEW)
        assert self.counted() == 3


@pytest.mark.django_db(transaction=True)
def test_lanes_are_counted_for_who_holds_them() -> None:
    OutboxEvent.objects.create(event_id=uuid4(), lane=5, topic=TOPIC, key="k", type="T", source="/")
    counted: list[float] = []

    def look() -> None:
        gauges.measure_lanes()
        counted.append(value(metrics.LANES_HELD, "eventsite"))
        connection.close()

    with transaction.atomic():
        assert claim_lanes(16, floors=Floors()) == [5]
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    look()
    assert counted == [1, 0]


@pytest.mark.django_db
def test_beats_audit_shows_what_is_missing_and_when_it_was_done() -> None:
    positions(10)
    published([9, 10])
    age(1)
    assert tasks.audit() == 1
    assert value(metrics.AUDIT_MISSING, HANDLER) == 1
    assert value(metrics.AUDIT_WAITING, HANDLER) == 1
    assert value(metrics.AUDIT_MISSING_AGE, HANDLER) >= 3600
    tasks.measure_handlers()
    assert 0 <= value(metrics.UPKEEP_AGE, "audit") < 60
    assert set(jobs.ages()) == {"audit", f"audit:{HANDLER}"} | {
        f"audit:{route.handler}" for route in conf.routes()
    }
