"""Beat's audit overlooks nothing: it keeps what is open, and waits for writers that stay open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, transaction

from devtools.testing.patience import PATIENCE
from outbox import queries, tasks
from outbox.audit import compare
from outbox.audit import watch as audit_watch
from outbox.audit.compare import AuditPage, MissingReason
from outbox.database import jobs
from outbox.kafka import admin
from outbox.models import (
    AuditOpen,
    InboxReceipt,
    OutboxEvent,
    UpkeepMark,
)
from outbox.tests.audited import LOGS, ROUTE, reasons, watch
from outbox.tests.backbone_rows import (
    HANDLER,
    age,
    positions,
    published,
    receipt,
)


def mark() -> int:
    return jobs.read_mark(f"audit:{HANDLER}")


@pytest.mark.django_db
class TestBeatsAudit:
    def test_keeps_what_is_open_and_moves_on(self) -> None:
        positions(10)
        done, missing, under_way = published([8, 9, 10])
        receipt(done)
        age(1)
        assert watch() == {MissingReason.PASSED: 1, MissingReason.UNDER_WAY: 1}
        assert mark() == under_way.id
        open_ids = set(AuditOpen.objects.values_list("outbox_id", flat=True))
        assert open_ids == {missing.id, under_way.id}

        receipt(under_way)
        assert watch() == {MissingReason.PASSED: 1}
        receipt(missing)
        assert watch() == {}
        assert not AuditOpen.objects.exists()
        assert audit_watch.behind_seconds(HANDLER) == 0

    def test_sees_an_open_event_become_missing(self) -> None:
        positions(10)
        published([10])
        age(1)
        assert watch() == {MissingReason.UNDER_WAY: 1}
        connection.cursor().execute("UPDATE bridge_position SET next_offset = 11")
        assert watch() == {MissingReason.PASSED: 1}

    def test_reads_behind_its_mark_only_what_is_open(self) -> None:
        positions(10)
        [event] = published([9])
        age(1)
        receipt(event)
        assert watch() == {}
        InboxReceipt.objects.all().delete()
        assert (watch(), reasons()) == ({}, [MissingReason.PASSED])

    def test_leaves_the_newest_alone(self) -> None:
        positions(10)
        published([8])
        age(1)
        published([9])
        assert watch() == {MissingReason.PASSED: 1}
        assert (len(reasons()), AuditOpen.objects.count()) == (2, 1)

    def test_looks_no_further_than_so_many_open_events(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_watch, "PAGE", 2)
        monkeypatch.setattr(audit_watch, "OPEN_LIMIT", 4)
        positions(10)
        events = published(range(10, 20))
        age(1)
        assert [watch(), watch()] == [{MissingReason.UNDER_WAY: 4}] * 2
        assert audit_watch.behind_seconds(HANDLER) >= 3600
        receipt(events[0])
        assert watch() == {MissingReason.UNDER_WAY: 5}

    @pytest.mark.parametrize(
        ("behind", "rests", "found"),
        # Half a second a read, four of them: two rests of a second, none where the time is up.
        [(59.0, [1.0, 1.0, 0.0], 6), (61.0, [0.0, 0.0, 0.0, 0.0], 9)],
    )
    def test_rests_behind_each_page_unless_it_is_behind(
        self, monkeypatch: pytest.MonkeyPatch, behind: float, rests: list[float], found: int
    ) -> None:
        now, slept, read = 0.0, [], compare.read_page

        def read_page(*args: Any, **options: Any) -> AuditPage:
            nonlocal now
            now += 0.5
            return read(*args, **options)

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds
            slept.append(seconds)

        positions(10)
        published(range(9))
        age(1)
        monkeypatch.setattr(
            audit_watch, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep)
        )
        monkeypatch.setattr(audit_watch, "behind_seconds", lambda _: behind)
        monkeypatch.setattr(audit_watch, "read_page", read_page)
        monkeypatch.setattr(audit_watch, "PAGE", 2)
        tallies = audit_watch.watch(ROUTE, LOGS, seconds=4.0)
        assert [tally.events for tally in tallies.values()] == [found]
        assert slept == rests

    def test_begins_again_after_a_replay(self) -> None:
        positions(10)
        published([9])
        age(1)
        watch()
        audit_watch.forget_handler(HANDLER)
        assert (mark(), AuditOpen.objects.count()) == (0, 0)
        assert watch() == {MissingReason.PASSED: 1}


@pytest.mark.django_db(transaction=True)
class TestAWriterThatStaysOpen:
    """Its row has a lower id than one that is committed already."""

    def overtaken(self, look: Callable[[], object]) -> None:
        positions(10)
        holds, end = threading.Event(), threading.Event()

        def slow_writer() -> None:
            with transaction.atomic():
                published([8])
                holds.set()
                assert end.wait(PATIENCE)
            connection.close()

        writer = threading.Thread(target=slow_writer)
        writer.start()
        assert holds.wait(PATIENCE)
        receipt(published([9])[0])
        OutboxEvent.objects.update(created_at="2026-01-01T00:00:00Z")
        look()
        end.set()
        writer.join()
        OutboxEvent.objects.update(created_at="2026-01-01T00:00:00Z")

    def test_is_not_overlooked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit_watch, "WRITERS_SECONDS", 0.1)
        self.overtaken(watch)
        assert watch() == {MissingReason.PASSED: 1}

    def test_would_be_without_the_look_at_writers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(queries, "open_writers", frozenset)
        self.overtaken(watch)
        assert watch() == {}
        assert reasons() == [MissingReason.PASSED]


@pytest.mark.django_db(transaction=True)
def test_two_beats_audit_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "topic_states", lambda _: LOGS)
    positions(10)
    published([9])
    age(1)
    results: list[int] = []

    def second() -> None:
        results.append(tasks.audit())
        connection.close()

    with jobs.only_one("audit") as mine:
        assert mine
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert (results, UpkeepMark.objects.count()) == ([0], 0)
    assert tasks.audit() == 1
    assert set(UpkeepMark.objects.values_list("name", flat=True)) >= {"audit", f"audit:{HANDLER}"}
