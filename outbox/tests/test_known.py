"""What the outbox knows of event ids, in one statement."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox.publish.known import known_event_ids
from outbox.tests.backbone_rows import TOPIC, published

pytestmark = pytest.mark.django_db


def test_only_ids_that_the_outbox_holds_are_known_whatever_became_of_the_events() -> None:
    ours = [event.event_id for status in (0, 1, 2, 3) for event in published([1], status=status)]
    published([2])  # not asked for
    theirs = [uuid4() for _ in range(3)]
    with CaptureQueriesContext(connection) as captured:
        assert known_event_ids(TOPIC, [*theirs, *ours, ours[0]]) == set(ours)
    assert len(captured) == 1
    assert known_event_ids(TOPIC, theirs) == set()


def test_an_id_of_another_topic_of_ours_is_not_known_for_this_one() -> None:
    [stock] = published([3], topic="stock")
    assert known_event_ids(TOPIC, [stock.event_id]) == set()
    assert known_event_ids("stock", [stock.event_id]) == {stock.event_id}


def test_nothing_is_asked_about_nothing() -> None:
    with CaptureQueriesContext(connection) as captured:
        assert known_event_ids(TOPIC, []) == set()
    assert len(captured) == 0


def test_every_id_is_one_probe_of_the_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO event_outbox (event_id, lane, topic, key, type, source, payload,
                                      traceparent, correlation_id, status)
            SELECT gen_random_uuid(), n % 64, 't', 'k', 'T', '/', '{}', '', '', 1
            FROM generate_series(1, 20000) n
            """
        )
        cursor.execute("ANALYZE event_outbox")
        with CaptureQueriesContext(connection) as captured:
            known_event_ids(TOPIC, [uuid4() for _ in range(500)])
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {captured[0]['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index Only Scan" in plan or "Index Scan" in plan, plan
    assert "Seq Scan" not in plan, plan
