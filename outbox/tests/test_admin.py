"""The backbone's pages in the admin: what they tell, that they change nothing, what they cost."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from outbox.admin.readonly import BoundedPaginator
from outbox.models import (
    BridgePosition,
    HandlerControl,
    InboxReceipt,
    OutboxEvent,
    OutboxLane,
)
from outbox.tests.admin_pages import (
    COUNT,
    ROWS_SHOWN,
    assert_every_page_is_bounded,
    fill,
    log_in,
    rows_touched,
    visit,
)

pytestmark = pytest.mark.django_db

EVENTS = "/admin/outbox/outboxevent/"
RECEIPTS = "/admin/outbox/inboxreceipt/"
POSITIONS = "/admin/outbox/bridgeposition/"
WAITING = 3


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many events and receipts as a page may touch; the first three still wait."""
    fill(
        monkeypatch,
        "event_outbox, inbox_receipt",
        f"""
        INSERT INTO event_outbox (event_id, lane, topic, key, type, source, payload,
            traceparent, correlation_id, status, published_at, "partition", "offset")
        SELECT md5(i::text)::uuid, i % 64, 'order-events', 'k' || i, 'ORDER_CREATED', '/orders',
            '{{}}', '', '', CASE WHEN i <= {WAITING} THEN 0 ELSE 1 END,
            CASE WHEN i > {WAITING} THEN now() END, CASE WHEN i > {WAITING} THEN 3 END,
            CASE WHEN i > {WAITING} THEN i END
        FROM generate_series(1, {COUNT}) i ORDER BY i
        """,
        "INSERT INTO inbox_receipt (event_id, handler)"
        " SELECT event_id, 'record_sales' FROM event_outbox ORDER BY id",
    )


@pytest.mark.usefixtures("many")
def test_no_page_touches_more_rows_than_it_may(operator: Client) -> None:
    event = OutboxEvent.objects.get(key="k77")
    receipt = InboxReceipt.objects.get(event_id=event.event_id)
    pages = [
        EVENTS,
        f"{EVENTS}?p=20",
        f"{EVENTS}?all=",
        f"{EVENTS}?o=4.-3",
        f"{EVENTS}?_facets=True",
        f"{EVENTS}?waiting=yes",
        f"{EVENTS}?waiting=",
        f"{EVENTS}?waiting=yes&o=-2",
        f"{EVENTS}?q={event.event_id}",
        f"{EVENTS}?q=nonsense",
        f"{EVENTS}{event.pk}/change/",
        f"{EVENTS}{event.pk}/history/",
        RECEIPTS,
        f"{RECEIPTS}?o=3",
        f"{RECEIPTS}?q={event.event_id}",
        f"{RECEIPTS}{receipt.pk}/change/",
    ]
    assert_every_page_is_bounded(operator, pages)


@pytest.mark.usefixtures("many")
def test_the_measure_finds_a_page_that_counts(operator: Client) -> None:
    """Django's own paginator over the same rows."""
    rows = OutboxEvent.objects.order_by("-id")
    assert rows_touched("SELECT count(*) FROM event_outbox") == COUNT
    assert (Paginator(rows, 50).count, BoundedPaginator(rows, 50).count) == (COUNT, ROWS_SHOWN)


@pytest.mark.usefixtures("many")
def test_what_waits_is_found_by_its_own_index(operator: Client) -> None:
    seen = visit(operator, f"{EVENTS}?waiting=yes")
    assert 0 < seen.rows <= WAITING
    assert [f">k{number}<" in seen.text for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "s old" in seen.text


@pytest.mark.usefixtures("many")
def test_what_waits_is_found_with_statistics_of_a_time_when_all_of_it_did(operator: Client) -> None:
    """The planner would rather read the newest rows until it has met enough that wait."""
    rows = OutboxEvent.objects.filter(id__gt=OutboxEvent.objects.earliest("id").id + WAITING - 1)
    with connection.cursor() as cursor:
        rows.update(status=OutboxEvent.Status.NEW)
        cursor.execute("ANALYZE event_outbox")
        rows.update(status=OutboxEvent.Status.PUBLISHED)
    seen = visit(operator, f"{EVENTS}?waiting=yes")
    assert ">k3<" in seen.text
    assert seen.rows <= WAITING, seen.sql


@pytest.mark.usefixtures("many")
def test_the_list_says_that_it_is_not_all(operator: Client) -> None:
    title = re.search(r"Outbox events: 1,000 of about ([0-9,]+) rows", visit(operator, EVENTS).text)
    assert title is not None
    # ANALYZE estimates; what other tests rolled back may still be in the pages it looks at.
    assert COUNT / 2 < int(title[1].replace(",", "")) < COUNT * 2
    OutboxEvent.objects.filter(id__lte=OutboxEvent.objects.latest("id").id - 999).delete()
    assert "of about" not in visit(operator, EVENTS).text


@pytest.mark.usefixtures("many")
def test_a_page_behind_the_last_one_is_refused(operator: Client) -> None:
    response = operator.get(f"{EVENTS}?p=21")
    assert (response.status_code, response["Location"]) == (302, f"{EVENTS}?e=1")


@pytest.mark.parametrize("query", ["topic=order-events", "payload__contains=x", "status__exact=1"])
def test_columns_without_an_index_cannot_be_asked_for(operator: Client, query: str) -> None:
    assert operator.get(f"{EVENTS}?{query}").status_code == 400


@pytest.mark.usefixtures("many")
def test_an_event_shows_what_became_of_it(operator: Client) -> None:
    event = OutboxEvent.objects.get(key="k77")
    seen = visit(operator, f"{EVENTS}{event.pk}/change/").text
    for part in ("3 @ 77", "record_sales: applied", str(event.event_id)):
        assert part in seen
    assert "none yet" not in seen
    InboxReceipt.objects.all().delete()
    assert "none yet" in visit(operator, f"{EVENTS}{event.pk}/change/").text


def test_payloads_stay_out_of_the_list(operator: Client) -> None:
    OutboxEvent.objects.create(
        event_id=uuid4(), lane=1, topic="t", key="k", type="T", source="/", payload="<big & fat>"
    )
    assert all('"payload"' not in sql for sql in _statements(operator, EVENTS))
    event = OutboxEvent.objects.get()
    assert "&lt;big &amp; fat&gt;" in visit(operator, f"{EVENTS}{event.pk}/change/").text


def _statements(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        client.get(path)
    return [query["sql"] for query in captured]


def test_positions_show_and_filter_what_an_operator_asks(operator: Client) -> None:
    for partition, paused in ((0, False), (1, True)):
        BridgePosition.objects.create(
            handler="record_sales",
            topic="order-events",
            partition=partition,
            topic_id=uuid4(),
            next_offset=4000 + partition,
            paused=paused,
            last_error="ValueError: <b>" if paused else "",
        )
    seen = visit(operator, POSITIONS).text
    assert ("4000" in seen, "4001" in seen, "ValueError: &lt;b&gt;" in seen) == (True, True, True)
    assert seen.count(">paused<") == 1
    paused_only = visit(operator, f"{POSITIONS}?paused__exact=1&handler=record_sales").text
    assert ("4000" in paused_only, "4001" in paused_only) == (False, True)
    row = BridgePosition.objects.get(partition=1)
    assert "4001" in visit(operator, f"{POSITIONS}{row.pk}/change/").text


def test_what_is_not_so_is_said_in_words(operator: Client) -> None:
    """Django's icon for False is a red cross, which "not paused" does not deserve."""
    rows = (
        OutboxLane.objects.get(lane=5),
        HandlerControl.objects.create(handler="h"),
        BridgePosition.objects.create(
            handler="h", topic="t", partition=0, topic_id=uuid4(), next_offset=1
        ),
    )
    for row in rows:
        base = f"/admin/outbox/{row._meta.model_name}/"
        for page in (base, f"{base}{row.pk}/change/"):
            text = visit(operator, page).text
            assert "icon-no" not in text, page
        assert '<div class="readonly">no</div>' in text


@pytest.mark.parametrize("model", [OutboxEvent, BridgePosition, InboxReceipt])
def test_nothing_can_be_changed(operator: Client, model: type[Model]) -> None:
    fields = {
        OutboxEvent: {"lane": 1, "topic": "t", "key": "k", "payload": "{}", "event_id": uuid4()},
        BridgePosition: {"partition": 0, "topic": "t", "next_offset": 1, "topic_id": uuid4()},
        InboxReceipt: {"handler": "h", "event_id": uuid4()},
    }
    row = model._default_manager.create(**fields[model])
    base = f"/admin/outbox/{model._meta.model_name}/"
    pages = [f"{base}add/", f"{base}{row.pk}/delete/", f"{base}{row.pk}/change/"]
    assert [operator.post(page).status_code for page in pages] == [403, 403, 403]
    operator.post(base, {"action": "delete_selected", "_selected_action": row.pk})
    assert model._default_manager.count() == 1


def test_a_stranger_is_sent_to_the_login(client: Client) -> None:
    response = client.get(EVENTS)
    assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={EVENTS}")


def test_the_site_has_its_name(operator: Client) -> None:
    text = visit(operator, "/admin/").text
    assert "Event backbone" in text
    assert "Django administration" not in text


def test_the_site_is_found_without_its_slash_and_has_its_style(client: Client) -> None:
    assert client.get("/admin")["Location"] == "/admin/"
    style = client.get("/static/admin/css/base.css")
    assert (style.status_code, style["Content-Type"]) == (200, "text/css")
    assert b"--primary" in style.getvalue()
    assert client.get("/static/nothing.css").status_code == 404
