"""What a look costs PostgreSQL with many of everything: rows that are bounded, and no table read whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feeds.fanout import measuring
from feeds.fanout.measuring import posts_between
from feeds.ids import EPOCH
from operations import journey, letters, pipeline, runs
from operations.judge import Judge
from operations.letters import GroupKey
from operations.past import KEPT_HOURS, PastReader
from operations.reading import answered
from operations.snapshot import Heard, Snapshot, take
from operations.tests.well import redis
from outbox import operator_log
from outbox.admin import search
from outbox.kafka.admin import TopicState
from outbox.tests.admin_pages import rows_touched
from outbox.tests.backbone_rows import HANDLER, TOPIC, TOPIC_ID
from outbox.upkeep import gauges
from outbox.upkeep.gauges import Backlog

pytestmark = pytest.mark.django_db

ROWS = 250  # that a query may touch of each kind
COUNT = 5_000  # rows of each table
LARGE = {
    *("event_outbox", "inbox_receipt", "dead_letter", "audit_open", "notifications", "feed_slices"),
    *("orders", "order_changes", "idempotency_keys", "notification_keys", "operator_action"),
    *("operations_minute", "posts", "bridge_position"),
}
FILLED = (
    f"""
    INSERT INTO event_outbox (event_id, lane, topic, key, type, source, payload, traceparent,
        correlation_id, status, published_at, "partition", "offset")
    SELECT md5(i::text)::uuid, i % 64, 'order-events', 'k' || i, 'ORDER_CREATED', '/orders', '{{}}', '',
        'c' || i, (i % 2)::int, CASE WHEN i % 2 = 1 THEN now() END,
        CASE WHEN i % 2 = 1 THEN 3 END, CASE WHEN i % 2 = 1 THEN i END
    FROM generate_series(1, {2 * COUNT}) i ORDER BY i
    """,
    f"""
    INSERT INTO inbox_receipt (event_id, handler)
    SELECT md5(i::text)::uuid, '{HANDLER}' FROM generate_series(1, {COUNT}) i
    """,
    f"""
    INSERT INTO dead_letter (handler, event_id, topic, key, type, source, event_time, payload,
        traceparent, correlation_id, state, error)
    SELECT '{HANDLER}', md5(i::text)::uuid, 'order-events', 'k' || i, 'T', '', '', '{{}}', '', 'c' || i,
        i % 5, CASE WHEN i % 5 = 1 THEN 'unknown type T: release x does not know it' ELSE 'boom' END
    FROM generate_series(1, {COUNT}) i
    """,
    f"""
    INSERT INTO bridge_position (handler, topic, "partition", topic_id, next_offset)
    SELECT '{HANDLER}', '{TOPIC}', i, '{TOPIC_ID}', 0 FROM generate_series(0, {2 * COUNT - 1}) i
    """,
    f"INSERT INTO orders (id, customer_id, total, status, created_at)"
    f" SELECT md5(i::text)::uuid, 'c' || i, 1, 'CREATED', now() FROM generate_series(1, {COUNT}) i",
    f"""
    INSERT INTO order_changes (order_id, to_status, actor, at, event_ids)
    SELECT md5(i::text)::uuid, 'CREATED', 'a', now(), ARRAY[md5(i::text)::uuid]
    FROM generate_series(1, {COUNT}) i
    """,
    f"INSERT INTO audit_open (handler, outbox_id, state)"
    f" SELECT '{HANDLER}', i, 'not yet applied' FROM generate_series(1, {COUNT}) i",
    f"""
    INSERT INTO notifications (id, caller, recipient, channel, priority, content, status, expires_at,
        max_retries, created_at, updated_at, due_at, ready_at)
    SELECT md5(i::text)::uuid, 'shop', 'r' || i, 'push', 'low', 'x',
        CASE WHEN i % 3 = 0 THEN 'delivered' ELSE 'pending' END, now(), 2, now(), now(),
        CASE WHEN i % 3 = 1 THEN now() END, CASE WHEN i % 3 = 1 THEN now() END
    FROM generate_series(1, {COUNT}) i
    """,
    f"INSERT INTO feed_slices (kind, author_id, post_id, failed_at)"
    f" SELECT 'post', 'star', i, CASE WHEN i % 2 = 0 THEN now() END FROM generate_series(1, {COUNT}) i",
    f"INSERT INTO operator_action (by, what, subject, ended_at)"
    f" SELECT 'ada', 'pause', 'handler ' || i, now() FROM generate_series(1, {COUNT}) i",
    f"INSERT INTO operations_minute (at, told)"
    f" SELECT now() - i * interval '1 minute', '{{}}' FROM generate_series(1, {COUNT}) i",
    f"INSERT INTO posts (id, author_id, content, created_at)"
    f" SELECT i::bigint << 32, 'ada', 'x', now() FROM generate_series(1, {COUNT}) i",
    f"INSERT INTO idempotency_keys (id, fingerprint, status, body)"
    f" SELECT md5(i::text)::uuid, md5(i::text)::uuid, 200, '{{}}' FROM generate_series(1, {COUNT}) i",
    f"INSERT INTO notification_keys (id, fingerprint, notification_id)"
    f" SELECT md5(i::text)::uuid, md5(i::text)::uuid, md5(i::text)::uuid FROM generate_series(1, {COUNT}) i",
)


@pytest.fixture
def much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many rows of each as a query may touch of it."""
    monkeypatch.setattr(pipeline, "ENOUGH", ROWS)
    monkeypatch.setattr(pipeline, "AUDIT_ROWS", ROWS)
    monkeypatch.setattr(gauges, "NEWEST", ROWS)
    monkeypatch.setattr(gauges, "OPEN_LOOKED_AT", ROWS)
    monkeypatch.setattr(gauges, "LETTERS_COUNT_LIMIT", ROWS)
    monkeypatch.setattr(pipeline, "LETTERS_GROUPED", ROWS)
    monkeypatch.setattr(pipeline, "OLDEST_PER_LANE", 10)
    monkeypatch.setattr(search, "ROWS_SEARCHED", ROWS)
    monkeypatch.setattr("notifications.delivery.measure.COUNTED_FOR_A_PAGE", 50)
    monkeypatch.setattr("feeds.fanout.measuring.COUNTED_FOR_A_PAGE", ROWS)
    with connection.cursor() as cursor:
        for statement in FILLED:
            cursor.execute(statement)
        cursor.execute("ANALYZE")


def costs(look: Callable[[], object]) -> Iterator[tuple[str, int, set[str]]]:
    """Each query of a look: its text, the rows that it touches, and the tables that it reads whole."""
    with CaptureQueriesContext(connection) as captured:
        look()
    for query in captured:
        sql = query["sql"].strip()
        if sql.startswith(("SELECT", "WITH")):
            yield sql, rows_touched(sql), read_whole(sql)


def read_whole(sql: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + sql.replace("%", "%%"), ())
        [[plan]] = [json.loads(row[0]) if isinstance(row[0], str) else row[0] for row in cursor]
    return {
        node["Relation Name"]
        for node in _nodes(plan["Plan"])
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
    }


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


@pytest.mark.usefixtures("much")
def test_looks_and_searches_touch_a_bounded_number_of_rows_and_read_no_large_table() -> None:
    for wanted in ("77", "k77", "c77", "nonsense", "28dd2c79-55ce-9264-56f3-d0e38b2b5b5e"):
        for sql, rows, whole in costs(partial(journey.search, wanted, answers=ROWS)):
            assert not whole, (wanted, sql)
            assert rows <= 3 * ROWS, (wanted, rows, sql)
    # Behind the searches: what it tells the planner lasts as long as the test's transaction.
    backlog = Backlog()
    for sql, rows, whole in costs(lambda: pipeline.ask_postgres(backlog)):
        assert not whole, sql
        # Three states of letters; the oldest of 64 lanes.
        assert rows <= 64 * 10 + 2 * ROWS, (rows, sql)
    _saw_what_there_is()


GROUP = GroupKey(handler=HANDLER, error="boom", upto=1 << 40)


@pytest.mark.usefixtures("much")
@pytest.mark.parametrize(
    "look",
    [
        lambda: letters.letter_groups(ROWS),
        lambda: letters.members(GROUP, after=0, limit=50, looked_at=ROWS),
        lambda: letters.members(GROUP, after=10**6, limit=50, looked_at=ROWS),
        lambda: letters.standing(GROUP),
        letters.groups_of_apps,
        lambda: operator_log.newest(20),
        lambda: operator_log.under(UUID(int=7)),
        runs.work,
        lambda: posts_between(EPOCH, EPOCH + timedelta(seconds=100)),
    ],
)
def test_what_actions_look_at_is_bounded_too(
    look: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "COUNTED", ROWS)
    monkeypatch.setattr(letters, "OF_APPS", ROWS)
    monkeypatch.setattr(letters, "FOLLOWERS_OF", 50)
    monkeypatch.setattr(measuring, "COUNTED", ROWS)
    for sql, rows, whole in costs(look):
        assert not whole, sql
        assert rows <= 3 * ROWS, (rows, sql)


@pytest.mark.usefixtures("much")
def test_the_last_day_is_read_along_its_index() -> None:
    """Its rows are purged by the day; if they were not, a look would still read a day alone."""
    for sql, rows, whole in costs(PastReader().read):
        assert whole <= {"django_migrations"}, sql
        assert rows <= KEPT_HOURS * 60 + ROWS, (rows, sql)
    assert len(PastReader().read().rows) == KEPT_HOURS * 60 - 1


def _saw_what_there_is() -> None:
    """Else it would be cheap for nothing."""
    found = pipeline.ask_postgres(Backlog())
    hops = {(hop.group, hop.name): hop for hop in found.hops}
    assert not found.failed
    assert hops["pipeline", "outbox"].waits == ROWS
    assert hops["dead letters", HANDLER].waits == 3 * ROWS
    assert hops["feeds", "fan-out"].waits == ROWS
    assert hops["notifications", "push"].waits
    assert hops["notifications", "made ready"].waits == 50
    assert [group.letters for group in found.letters] == [ROWS]
    [cut] = [row for row in found.handlers if row.positions is None]
    assert cut.status.handler == HANDLER
    card = next(each for each in _page(found).stations if each.hop.name == HANDLER)
    assert "it has more than 250 positions" in " ".join(card.hop.notes)
    assert (card.hop.waits, card.hop.done) == (None, None)


@pytest.mark.usefixtures("much")
def test_ten_thousand_partitions_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ENOUGH", 2 * COUNT)
    found = pipeline.ask_postgres(Backlog())
    [row] = [row for row in found.handlers if row.status.handler == HANDLER]
    assert row.positions is not None
    assert len(row.positions) == 2 * COUNT


def _page(found: pipeline.FromPostgres) -> Snapshot:
    log = TopicState(
        TOPIC, TOPIC_ID, dict.fromkeys(range(2 * COUNT), 0), dict.fromkeys(range(2 * COUNT), 1)
    )
    heard = Heard(postgres=answered(found), redis=answered(redis()), kafka=answered({TOPIC: log}))
    return take(heard, Judge(settings.WIRING.alarms))
