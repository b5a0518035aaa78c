"""Search in the admin: by any whole id, at a bounded cost, and nothing is passed over in silence."""

from __future__ import annotations

import html
import re
from uuid import UUID, uuid4

import pytest
from django.test import Client

from outbox.admin import search
from outbox.models import BridgePosition, DeadLetter, HandlerControl, InboxReceipt, OutboxEvent
from outbox.tests.admin_pages import (
    COUNT,
    ROWS_SHOWN,
    assert_every_page_is_bounded,
    fill,
    log_in,
    visit,
)

pytestmark = pytest.mark.django_db

EVENTS = "/admin/outbox/outboxevent/"
RECEIPTS = "/admin/outbox/inboxreceipt/"
LETTERS = "/admin/outbox/deadletter/"
POSITIONS = "/admin/outbox/bridgeposition/"
LISTS = (EVENTS, RECEIPTS, LETTERS, POSITIONS)
NEW, OLD = COUNT - 7, 77  # within and behind what one search for a key reads


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many events, receipts and dead letters as one search may read."""
    columns = "topic, key, type, source, payload, traceparent, correlation_id"
    values = "'order-events', 'k' || i, 'ORDER_CREATED', '/orders', '{}', '', 'c' || i"
    fill(
        monkeypatch,
        "event_outbox, inbox_receipt, dead_letter",
        f"INSERT INTO event_outbox (event_id, lane, {columns}, status)"
        f" SELECT md5(i::text)::uuid, i % 64, {values}, 1 FROM generate_series(1, {COUNT}) i"
        " ORDER BY i",
        "INSERT INTO inbox_receipt (event_id, handler)"
        " SELECT event_id, 'record_sales' FROM event_outbox ORDER BY id",
        f"INSERT INTO dead_letter (handler, event_id, state, error, event_time, {columns})"
        f" SELECT 'record_sales', md5(i::text)::uuid, 3, '', '', {values}"
        f" FROM generate_series(1, {COUNT}) i ORDER BY i",
    )


def event_id(number: int) -> UUID:
    return OutboxEvent.objects.get(key=f"k{number}").event_id


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", [EVENTS, RECEIPTS, LETTERS])
def test_a_row_is_found_by_its_event_its_key_and_its_correlation(
    operator: Client, path: str
) -> None:
    wanted, other = event_id(NEW), event_id(NEW + 1)
    for text in (str(wanted), f"  {str(wanted).upper()} ", f"k{NEW}", f"c{NEW}"):
        found = visit(operator, f"{path}?q={text}")
        assert (str(wanted) in found.text, str(other) in found.text) == (True, False), text
        assert found.rows <= ROWS_SHOWN, found.sql


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", [EVENTS, RECEIPTS, LETTERS])
def test_an_old_event_is_found_by_its_id_and_nothing_else_is_read(
    operator: Client, path: str
) -> None:
    wanted = event_id(OLD)
    found = visit(operator, f"{path}?q={wanted}")
    assert str(wanted) in found.text
    assert found.rows <= 4, found.sql


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", [EVENTS, RECEIPTS, LETTERS])
def test_a_search_by_key_says_where_it_stopped_and_can_go_on(operator: Client, path: str) -> None:
    wanted, url = str(event_id(OLD)), f"{path}?q=k{OLD}"
    for _ in range(COUNT // ROWS_SHOWN):
        seen = visit(operator, url)
        assert seen.rows <= ROWS_SHOWN, seen.sql
        if wanted in seen.text:
            break
        assert f"looked for in {ROWS_SHOWN:,} " in seen.text
        [link] = re.findall(r'<a href="(\?q=[^"]+)">Look in older ones', seen.text)
        url = path + html.unescape(link)
    assert wanted in seen.text


@pytest.mark.usefixtures("many")
def test_no_search_reads_more_rows_than_it_may(operator: Client) -> None:
    texts = ("nonsense", str(uuid4()), "k1 before:5", "k1 before:999999999999999999", "%25", "_")
    assert_every_page_is_bounded(operator, [f"{path}?q={text}" for path in LISTS for text in texts])


MALFORMED = (
    "%00", "%ff", "a%00b", "%F0%9F%98%80", "x" * 5_000, "'", "before:1", "a before:x",
    "a before:99999999999999999999999", "0" * 31, "-1", "%20", "%0a", "{}", "ek_00000000",
)  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_what_is_no_id_gets_an_answer(operator: Client, path: str) -> None:
    for text in MALFORMED:
        for other in ("", "&o=1"):
            assert operator.get(f"{path}?q={text}{other}").status_code in {200, 302}, text


def test_a_search_that_finds_nothing_says_so(operator: Client) -> None:
    for path in LISTS:
        seen = visit(operator, f"{path}?q=<b>nobody</b>").text
        assert "Nothing here has the id “&lt;b&gt;nobody&lt;/b&gt;”." in seen, path


def test_more_rows_than_one_search_finds_are_told(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "ROWS_FOUND", 2)
    for _ in range(3):
        OutboxEvent.objects.create(
            event_id=uuid4(), lane=1, topic="t", key="hot", type="T", source="/", payload=""
        )
    seen = visit(operator, f"{EVENTS}?q=hot").text
    assert "More than 2 rows have it" in seen
    assert "2 results" in seen


def test_a_foreign_event_is_found_by_its_id_though_the_outbox_has_never_held_it(
    operator: Client,
) -> None:
    foreign = uuid4()
    InboxReceipt.objects.create(event_id=foreign, handler="h")
    DeadLetter.objects.create(handler="h", event_id=foreign, topic="t", key="theirs", state=2)
    for path in (RECEIPTS, LETTERS):
        assert str(foreign) in visit(operator, f"{path}?q={foreign}").text
    assert str(foreign) in visit(operator, f"{LETTERS}?q=theirs").text


def test_positions_are_found_by_handler_topic_and_topic_id(operator: Client) -> None:
    rows = [
        BridgePosition.objects.create(
            handler=f"h{n}",
            topic=f"t{n}",
            partition=0,
            topic_id=uuid4(),
            next_offset=7_000_000_000 + n,
        )
        for n in range(2)
    ]
    for text in ("h1", "t1", rows[1].topic_id):
        seen = visit(operator, f"{POSITIONS}?q={text}").text
        assert ("7000000001" in seen, "7000000000" in seen) == (True, False), text


def test_keys_of_rows_that_are_no_ids_get_an_answer(operator: Client) -> None:
    HandlerControl.objects.create(handler="h")
    for path in (*LISTS, "/admin/outbox/handlercontrol/", "/admin/outbox/outboxlane/"):
        for key in ("nonsense", "_00", "99999999999999999999999999", "-1", "%ff"):
            assert operator.get(f"{path}{key}/change/").status_code == 302, (path, key)
    for query in ("handler=%00", "topic__exact=%00", "paused__exact=x"):
        assert operator.get(f"{POSITIONS}?{query}").status_code in {200, 302, 400}, query
