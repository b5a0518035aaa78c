"""The audit: what is missing is told from what is under way, and beat's audit overlooks nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from devtools.testing.patience import PATIENCE
from outbox import conf, jobs, queries, tasks
from outbox.audit import compare, new_log
from outbox.audit import watch as audit_watch
from outbox.audit.compare import AuditPage, MissingReason
from outbox.declaration import Route
from outbox.kafka import admin
from outbox.models import (
    AuditOpen,
    BridgePosition,
    DeadLetter,
    InboxReceipt,
    OutboxEvent,
    UpkeepMark,
)
from outbox.tests.backbone_rows import (
    HANDLER,
    LOG,
    TOPIC,
    age,
    positions,
    published,
    receipt,
    refused,
)
from outbox.upkeep import purge

LOGS = {TOPIC: LOG}
ROUTE = conf.route_named(HANDLER)


def reasons() -> list[MissingReason]:
    return [each.reason for page in compare.pages(ROUTE, LOGS) for each in page]


@pytest.mark.django_db
class TestAnEvent:
    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            ({"offset": 9}, MissingReason.PASSED),
            ({"offset": 10}, MissingReason.UNDER_WAY),
            ({"offset": None, "partition": None, "status": 0}, MissingReason.UNSENT),
            ({"offset": None, "partition": None, "status": 2}, MissingReason.HELD),
            ({"offset": 12, "partition": 99}, MissingReason.NO_POSITION),
        ],
    )
    def test_without_a_receipt(self, event: dict[str, Any], reason: MissingReason) -> None:
        positions(10)
        published([0], **event)
        assert reasons() == [reason]

    @pytest.mark.parametrize(
        ("letter", "found"),
        [(DeadLetter.State.DEAD, [MissingReason.REFUSED]), (DeadLetter.State.DISCARDED, [])],
    )
    def test_that_kafka_has_refused(self, letter: int, found: list[MissingReason]) -> None:
        refused(letter)
        assert reasons() == found

    @pytest.mark.parametrize(
        ("offset", "reason"), [(4, MissingReason.GONE), (5, MissingReason.UNDER_WAY)]
    )
    def test_that_the_log_no_longer_holds(self, offset: int, reason: MissingReason) -> None:
        positions(3)
        published([offset], partition=0)
        assert reasons() == [reason]

    def test_of_a_topic_recreated(self) -> None:
        positions(3, topic_id=uuid4())
        published([7])
        assert reasons() == [MissingReason.OTHER_LOG]

    @pytest.mark.parametrize(
        ("outcome", "found"),
        [
            (InboxReceipt.Outcome.APPLIED, []),
            (InboxReceipt.Outcome.DISCARDED, []),
            (InboxReceipt.Outcome.PARKED, [MissingReason.PARKED]),
        ],
    )
    def test_with_a_receipt(self, outcome: int, found: list[MissingReason]) -> None:
        positions(10)
        receipt(published([9])[0], outcome)
        assert reasons() == found

    def test_with_the_receipt_of_another_handler(self) -> None:
        positions(10)
        receipt(published([9])[0], handler="another")
        assert reasons() == [MissingReason.PASSED]

    @pytest.mark.parametrize("change", [{"type": "OTHER"}, {"topic": "other"}])
    def test_nobody_subscribes_to(self, change: dict[str, Any]) -> None:
        positions(10)
        published([9], **change)
        assert reasons() == []

    def test_from_before_the_handler_began(self) -> None:
        positions(10, start_offset=8)
        published([7, 8])
        assert reasons() == [MissingReason.PASSED]

    def test_is_judged_without_kafka_by_the_position_alone(self) -> None:
        positions(3)
        published([2], partition=0)
        published([4], partition=0)
        found = [each.reason for page in compare.pages(ROUTE, {}) for each in page]
        assert found == [MissingReason.PASSED, MissingReason.UNDER_WAY]


@pytest.mark.django_db
def test_pages_end_where_the_outbox_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "PAGE", 2)
    positions(10)
    events = published([1, 2, 3, 4, 5])
    receipt(events[1])
    found = [each.offset for page in compare.pages(ROUTE, LOGS) for each in page]
    assert found == [1, 3, 4, 5]


@pytest.mark.django_db
class TestADatabaseClockSetBack:
    """Rows seem to be written in times to come."""

    def test_hides_nothing_from_a_whole_audit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "PAGE", 2)
        positions(10)
        published([7, 8, 9])
        age(-1)
        assert reasons() == [MissingReason.PASSED] * 3

    def test_forgets_no_open_row(self) -> None:
        positions(10)
        published([9])
        age(1)
        assert watch() == {MissingReason.PASSED: 1}
        age(-2)
        assert [watch(), watch()] == [{MissingReason.PASSED: 1}] * 2


@pytest.mark.django_db
class TestTheEndOfALog:
    @pytest.mark.parametrize(
        ("offset", "reason"), [(98, MissingReason.UNDER_WAY), (99, MissingReason.GONE)]
    )
    def test_before_which_a_row_was_published(self, offset: int, reason: MissingReason) -> None:
        positions(10)
        published([offset])
        age(1)
        assert reasons() == [reason]

    def test_says_nothing_of_rows_published_after_it_was_read(self) -> None:
        positions(10)
        published([99])
        age(0.5)
        earlier = replace(LOG, read_at=time.monotonic() - 3600)
        [page] = compare.pages(ROUTE, {TOPIC: earlier})
        assert [each.reason for each in page] == [MissingReason.UNDER_WAY]


def watch() -> dict[MissingReason, int]:
    return {reason: tally.events for (_, reason), tally in audit_watch.watch(ROUTE, LOGS).items()}


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


def run_command(*arguments: str) -> str:
    out = StringIO()
    call_command("audit", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.django_db
class TestTheCommand:
    @pytest.fixture(autouse=True)
    def kafka(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admin, "topic_states", lambda _: LOGS)

    def test_says_when_all_is_well(self) -> None:
        assert run_command() == "Every committed event has arrived everywhere.\n"

    def test_names_what_is_missing_and_exits_1(self) -> None:
        positions(10)
        [event] = published([9])
        published([10])
        age(1)
        out = StringIO()
        with pytest.raises(CommandError, match=r"^1 events are missing\.$"):
            call_command("audit", "--handler", HANDLER, stdout=out)
        lines = out.getvalue().splitlines()
        assert lines[0].startswith(f"MISSING {HANDLER}: ORDER_CREATED {event.event_id} of {TOPIC}")
        assert lines[0].endswith("at 1 @ 9, 3600 s old: passed without a receipt")
        assert f"{HANDLER}: 1 waiting, the oldest 3600 s: not yet applied" in lines

    def test_waiting_is_no_fault(self) -> None:
        positions(10)
        published([10])
        [told] = json.loads(run_command("--json"))["handlers"]
        assert (told["state"], told["missing"], told["events"]) == ("under_way", False, 1)

    def test_knows_its_handlers(self) -> None:
        with pytest.raises(CommandError, match="No handler named 'nobody'"):
            run_command("--handler", "nobody")


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


@pytest.mark.django_db
class TestALogMadeAnew:
    NEW = replace(
        LOG,
        topic_id=uuid4(),
        earliest=dict.fromkeys(range(12), 0),
        latest=dict.fromkeys(range(12), 3),
    )

    def adopt(self, *routes: Route, held: Collection[UUID] = ()) -> int:
        return new_log.adopt_recreated_topics(routes, lambda: {TOPIC: self.NEW}, lambda _: held)

    def test_holds_nothing_from_before_a_handler_began(self) -> None:
        positions(10, start_offset=8)
        [late] = published([0])
        assert self.adopt(ROUTE, held=[late.event_id]) == 1
        assert not InboxReceipt.objects.exists()

    def test_brings_no_history_to_a_handler_that_began_later(self) -> None:
        positions(10, start_offset=8)
        early, late = published([7, 9])
        assert self.adopt(ROUTE) == 1
        early.refresh_from_db()
        late.refresh_from_db()
        assert (early.status, late.status) == (
            OutboxEvent.Status.PUBLISHED,
            OutboxEvent.Status.NEW,
        )
        [found] = [each for page in compare.pages(ROUTE, {TOPIC: self.NEW}) for each in page]
        assert (found.outbox_id, found.reason) == (late.id, MissingReason.UNSENT)

    @pytest.mark.parametrize("newcomer_first", [True, False])
    def test_brings_none_either_if_another_handler_lacks_it(self, newcomer_first: bool) -> None:
        positions(3)
        newcomer = replace(ROUTE, handler="newcomer")
        positions(10, handler="newcomer", start_offset=8)
        [history] = published([7])
        assert self.adopt(*((newcomer, ROUTE) if newcomer_first else (ROUTE, newcomer))) == 1
        outcomes = InboxReceipt.objects.filter(event_id=history.event_id)
        assert list(outcomes.values_list("handler", "outcome")) == [
            ("newcomer", InboxReceipt.Outcome.DISCARDED)
        ]

    def test_goes_on_behind_what_it_holds_already(self) -> None:
        positions(10)
        published([11, 0])  # in the old log, and by a drain that was quicker in the new one
        assert self.adopt(ROUTE) == 2
        rows = BridgePosition.objects.values_list("topic_id", "next_offset", "start_offset")
        assert set(rows) == {(self.NEW.topic_id, 3, -1)}
        assert self.adopt(ROUTE) == 0

    def test_moves_those_too_that_began_in_it(self) -> None:
        positions(10)
        positions(0, handler="newcomer", topic_id=self.NEW.topic_id)
        self.adopt(ROUTE, replace(ROUTE, handler="newcomer"))
        assert set(BridgePosition.objects.values_list("next_offset", flat=True)) == {3}

    def test_is_read_once_no_drain_can_work(self) -> None:
        positions(10)

        def read() -> dict[str, admin.TopicState]:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
                    " AND relation = 'outbox_lane'::regclass AND mode = 'RowShareLock'"
                )
                assert cursor.fetchone() == (1,)
            return {TOPIC: self.NEW}

        new_log.adopt_recreated_topics([ROUTE], read, lambda _: ())

    def test_makes_every_row_count_for_audit_and_purge(self) -> None:
        positions(10, start_offset=8)
        self.adopt(ROUTE)
        published([0])
        assert [
            each.reason for page in compare.pages(ROUTE, {TOPIC: self.NEW}) for each in page
        ] == [MissingReason.PASSED]
        age(24 * 365)
        assert purge.purge().events == 0
