"""What the purge lets go of, and above all what it does not."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from outbox import conf, tasks
from outbox.checks import check_event_map
from outbox.conf import Retention
from outbox.database import jobs
from outbox.models import DeadLetter, DeadLetterAction, InboxReceipt, OutboxEvent, UpkeepMark
from outbox.tests.backbone_rows import HANDLER, age, positions, published, receipt, refused
from outbox.upkeep.purge import purge

KEPT = Retention(receipts=10, outbox=20, dead_letters=100)


def offsets() -> list[int | None]:
    return list(OutboxEvent.objects.order_by("id").values_list("offset", flat=True))


@pytest.mark.django_db
class TestARow:
    def test_goes_with_its_receipts_once_it_is_done_and_old(self) -> None:
        positions(10)
        [event] = published([9])
        receipt(event)
        receipt(event, handler="one that is gone")
        age(21)
        purged = purge(KEPT)
        assert (purged.events, purged.receipts, purged.kept) == (1, 2, 0)
        assert (offsets(), InboxReceipt.objects.count()) == ([], 0)

    def test_stays_while_it_is_young(self) -> None:
        positions(10)
        receipt(published([9])[0])
        age(19)
        assert purge(KEPT).events == 0
        assert (offsets(), InboxReceipt.objects.count()) == ([9], 1)

    @pytest.mark.parametrize(
        ("event", "outcome"),
        [
            ({}, None),
            ({}, InboxReceipt.Outcome.PARKED),
            ({"status": OutboxEvent.Status.NEW}, InboxReceipt.Outcome.APPLIED),
            ({"status": OutboxEvent.Status.HELD}, None),
        ],
    )
    def test_stays_while_it_is_not_done(self, event: dict[str, Any], outcome: int | None) -> None:
        positions(10)
        [row] = published([9], **event)
        if outcome is not None:
            receipt(row, outcome)
        age(1000)
        purged = purge(KEPT)
        assert (purged.events, purged.kept, offsets()) == (0, 1, [9])

    @pytest.mark.parametrize(
        ("letter", "events"), [(DeadLetter.State.DEAD, 0), (DeadLetter.State.DISCARDED, 1)]
    )
    def test_that_kafka_has_refused_goes_once_that_is_discarded(
        self, letter: int, events: int
    ) -> None:
        refused(letter)
        age(1000)
        assert purge(KEPT).events == events

    def test_stays_until_every_handler_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        second = replace(conf.route_named(HANDLER), handler="second")
        routes = (*conf.routes(), second)
        monkeypatch.setattr(conf, "routes", lambda: routes)
        positions(10)
        [event] = published([9])
        receipt(event)
        age(1000)
        assert purge(KEPT).events == 0
        receipt(event, handler="second")
        assert purge(KEPT).events == 1

    def test_nobody_subscribes_to_goes(self) -> None:
        published([9], type="OTHER")
        age(21)
        assert purge(KEPT).events == 1

    def test_from_before_the_handler_began_goes(self) -> None:
        positions(20, start_offset=10)
        published([9, 10])
        age(21)
        assert (purge(KEPT).events, offsets()) == (1, [10])

    def test_that_was_published_late_is_counted_from_then(self) -> None:
        positions(10)
        [event] = published([9])
        receipt(event)
        age(1000)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE event_outbox SET published_at = clock_timestamp()")
        assert purge(KEPT).events == 0

    def test_goes_from_behind_ones_that_were_published_again(self) -> None:
        positions(10)
        events = published([1, 2, 3, 4])
        for event in events:
            receipt(event)
        age(21)
        again = OutboxEvent.objects.filter(id__in=[event.id for event in events[:2]])
        again.update(published_at=timezone.now())
        purged = purge(KEPT, chunk=2)
        assert (purged.events, purged.kept, purged.complete) == (2, 0, True)
        assert offsets() == [1, 2]

    def test_that_is_done_goes_from_behind_ones_that_are_not(self) -> None:
        positions(10)
        events = published([1, 2, 3, 4, 5, 6, 7])
        for event in events[4:]:
            receipt(event)
        age(21)
        published([8])
        purged = purge(KEPT, chunk=2)
        assert (purged.events, purged.kept, purged.complete) == (3, 4, True)
        assert offsets() == [1, 2, 3, 4, 8]


@pytest.mark.django_db
class TestAReceiptWithoutARow:
    """Of a message that somebody else has written to our topic."""

    def test_goes_after_the_retention_of_receipts(self) -> None:
        for _ in range(5):
            InboxReceipt.objects.create(event_id=uuid4(), handler=HANDLER)
        age(11)
        young = InboxReceipt.objects.create(event_id=uuid4(), handler=HANDLER)
        assert purge(KEPT, chunk=2).receipts == 5
        assert list(InboxReceipt.objects.all()) == [young]

    def test_stays_while_it_is_parked(self) -> None:
        InboxReceipt.objects.create(event_id=uuid4(), handler=HANDLER, outcome=1)
        age(1000)
        assert purge(KEPT).receipts == 0

    def test_whose_row_is_there_waits_for_it(self) -> None:
        positions(10)
        receipt(published([9])[0])
        age(11)
        assert purge(KEPT).receipts == 0
        assert InboxReceipt.objects.count() == 1
        age(10)
        assert (purge(KEPT).receipts, InboxReceipt.objects.count()) == (1, 0)


@pytest.mark.django_db
class TestADeadLetter:
    @pytest.mark.parametrize(
        ("state", "hours", "left"),
        [
            (DeadLetter.State.APPLIED, 101, 0),
            (DeadLetter.State.DISCARDED, 101, 0),
            (DeadLetter.State.DISCARDED, 99, 1),
            (DeadLetter.State.DEAD, 101, 1),
        ],
    )
    def test_goes_long_after_it_was_resolved(self, state: int, hours: int, left: int) -> None:
        letter = DeadLetter.objects.create(
            handler=HANDLER,
            event_id=uuid4(),
            topic="t",
            key="k",
            state=state,
            resolved_at=timezone.now() - timedelta(hours=hours),
        )
        DeadLetterAction.objects.create(letter=letter, action="replay", by="ops")
        assert purge(KEPT).dead_letters == 1 - left
        assert (DeadLetter.objects.count(), DeadLetterAction.objects.count()) == (left, left)


@pytest.mark.django_db
class TestARun:
    def test_that_comes_to_its_end_says_so(self) -> None:
        purge(KEPT)
        assert UpkeepMark.objects.filter(name="purge").exists()

    def test_without_time_does_not(self) -> None:
        published([1])
        age(1000)
        assert purge(KEPT, seconds=-1).complete is False
        assert not UpkeepMark.objects.filter(name="purge").exists()


@pytest.mark.django_db(transaction=True)
def test_two_beats_purge_once() -> None:
    positions(10)
    receipt(published([9])[0])
    age(24 * 365)
    results: list[int] = []

    def second() -> None:
        results.append(tasks.purge())
        connection.close()

    with jobs.only_one("purge"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert results == [0]
    assert tasks.purge() == 2


def test_a_lock_is_free_again_after_its_job(db: None) -> None:
    with jobs.only_one("job") as first:
        assert first
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    ("receipts", "outbox", "errors"),
    [
        (240, 336, []),
        (168, 336, ["outbox.E011"]),
        (240, 240, ["outbox.E012"]),
        (100, 50, ["outbox.E011", "outbox.E012"]),
    ],
)
def test_the_wrong_order_of_the_three_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, receipts: int, outbox: int, errors: list[str]
) -> None:
    kept = Retention(receipts=receipts, outbox=outbox, dead_letters=1)
    monkeypatch.setattr(conf, "retention", lambda: kept)
    assert sorted({str(error.id) for error in check_event_map()}) == errors
