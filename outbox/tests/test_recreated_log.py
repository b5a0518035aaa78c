"""A recreated log: positions move to it, and every event still counts once for audit and purge."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from django.db import connection

from outbox.audit import compare, new_log
from outbox.audit.compare import MissingReason
from outbox.declaration import Route
from outbox.kafka import admin
from outbox.models import (
    BridgePosition,
    InboxReceipt,
    OutboxEvent,
)
from outbox.tests.audited import ROUTE
from outbox.tests.backbone_rows import (
    LOG,
    TOPIC,
    age,
    positions,
    published,
)
from outbox.upkeep import purge


@pytest.mark.django_db
class TestARecreatedLog:
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
