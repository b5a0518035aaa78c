"""The journey of an event is told from what the database holds, at each of its stops."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from devtools.testing.histories import order_events, pay, place
from devtools.testing.posts import create_posts, new_post
from eventsite.reports.journey import Journey, Stop, journey_of, travels_of
from feeds.models import FeedSlice
from feeds.services import delete_posts
from notifications.models import Attempt, Notification
from notifications.tests.samples import NEXT_MONTH, SMS, accept
from orders import services
from orders.services import NewOrder
from outbox.envelope import TraceContext, rfc3339
from outbox.models import BridgePosition, InboxReceipt, OutboxEvent

pytestmark = pytest.mark.django_db

COMMITTED = datetime(2026, 3, 11, 22, 0, 0, 0, tzinfo=UTC)


def _event() -> OutboxEvent:
    """The one order event of a new order, committed at a time we know."""
    order_id = place(at=timezone.now(), lines=[("p1", 1, "1")])
    [event] = order_events(order_id)
    event.created_at = COMMITTED
    event.save()
    return event


def _publish(event: OutboxEvent, *, after_ms: float = 20, offset: int = 57) -> None:
    event.status = OutboxEvent.Status.PUBLISHED
    event.published_at = COMMITTED + timedelta(milliseconds=after_ms)
    event.partition, event.offset = 3, offset
    event.save()


def _position(next_offset: int, **more: object) -> None:
    BridgePosition.objects.create(
        handler="record_sales",
        topic="order-events",
        partition=3,
        topic_id=uuid4(),
        next_offset=next_offset,
        **more,
    )


def _receipt(event: OutboxEvent, *, after_ms: float, handler: str = "record_sales") -> None:
    InboxReceipt.objects.create(
        event_id=event.event_id,
        handler=handler,
        applied_at=COMMITTED + timedelta(milliseconds=after_ms),
    )


def _journey(event: OutboxEvent) -> Journey:
    journey = journey_of(event.event_id)
    assert journey is not None
    return journey


def _stops(event: OutboxEvent) -> list[tuple[str, str]]:
    return [(stop.name, stop.state) for stop in _journey(event).stops]


def _run(identity: object, *flags: str) -> str:
    out = StringIO()
    call_command("event", str(identity), *flags, stdout=out)
    return out.getvalue()


def test_before_kafka_everyone_waits() -> None:
    event = _event()
    assert _stops(event) == [
        ("outbox", "committed"),
        ("kafka", "waiting"),
        ("record_sales", "waiting"),
    ]
    assert _journey(event).stops[0].at == COMMITTED


def test_a_waiting_handler_tells_its_position() -> None:
    event = _event()
    _publish(event)
    _position(41, attempts=2, failed_at=COMMITTED)
    assert _journey(event).stops[2:] == [
        Stop(
            name="record_sales",
            state="waiting",
            detail="at offset 41 of partition 3, 16 before the event, "
            "failing since 22:00:00, 2 attempts",
            process="worker-effects",
        )
    ]


def test_a_paused_handler_a_missing_position_and_a_missing_receipt_have_names() -> None:
    event = _event()
    _publish(event)
    assert "run manage.py sync_routes" in _journey(event).stops[-1].detail
    _position(57, paused=True)
    assert _stops(event)[-1] == ("record_sales", "paused")
    BridgePosition.objects.update(next_offset=58)
    assert _stops(event)[-1] == ("record_sales", "missing")


def test_the_times_between_are_milliseconds() -> None:
    event = _event()
    _publish(event, after_ms=20.5)
    _receipt(event, after_ms=45)
    assert _journey(event).stops == [
        Stop(name="outbox", state="committed", at=COMMITTED, total_ms=0, step_ms=0),
        Stop(
            name="kafka",
            state="published",
            at=COMMITTED + timedelta(milliseconds=20.5),
            total_ms=20.5,
            step_ms=20.5,
            detail="order-events, partition 3, offset 57",
            process="worker-outbox",
        ),
        Stop(
            name="record_sales",
            state="applied",
            at=COMMITTED + timedelta(milliseconds=45),
            total_ms=45,
            step_ms=24.5,
            process="worker-effects",
        ),
    ]


def test_a_journey_begins_with_its_request_whose_time_is_not_known() -> None:
    """An event that no request asked for has none."""
    event = _event()
    assert _stops(event)[0] == ("outbox", "committed")
    event.correlation_id = "corr-1"
    event.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event.save()
    _publish(event)
    _receipt(event, after_ms=45)
    stops = _journey(event).stops
    assert [stop.name for stop in stops] == ["request", "outbox", "kafka", "record_sales"]
    assert stops[0] == Stop(
        name="request",
        state="accepted",
        detail="source /orders, correlation id corr-1, trace 0af7651916cd43dd8448eb211c80319c",
        process="web",
    )
    assert [stop.step_ms for stop in stops[1:3]] == [0, 20]


def test_a_handler_may_be_through_before_the_drain_has_settled() -> None:
    event = _event()
    _publish(event, after_ms=30)
    _receipt(event, after_ms=25)
    assert [stop.name for stop in _journey(event).stops] == ["outbox", "record_sales", "kafka"]
    assert [stop.step_ms for stop in _journey(event).stops] == [0, 25, 5]


def test_only_subscribed_handlers_are_waited_for_and_every_receipt_is_told() -> None:
    place(at=timezone.now(), amount="1")
    event = OutboxEvent.objects.get(topic="orders.created")
    event.created_at = COMMITTED
    event.save()
    _receipt(event, after_ms=1, handler="retired_handler")
    assert _stops(event) == [
        ("outbox", "committed"),
        ("retired_handler", "applied"),
        ("kafka", "waiting"),
        ("record_processed_events", "waiting"),
    ]


def test_an_event_type_that_this_release_does_not_know_is_waited_for() -> None:
    event = _event()
    event.type = "ORDER_RENAMED"
    event.save()
    assert _stops(event) == [
        ("outbox", "committed"),
        ("kafka", "waiting"),
        ("record_sales", "waiting"),
    ]


def test_an_event_for_others_waits_for_kafka_alone() -> None:
    place(at=timezone.now(), lines=[("p1", 1, "1")])
    event = OutboxEvent.objects.get(topic="stock")
    event.created_at = COMMITTED
    assert _stops(event) == [("outbox", "committed"), ("kafka", "waiting")]
    _publish(event)
    assert _stops(event) == [("outbox", "committed"), ("kafka", "published")]


def test_a_parked_and_a_held_event_say_so() -> None:
    event = _event()
    _publish(event)
    _receipt(event, after_ms=9)
    InboxReceipt.objects.update(outcome=InboxReceipt.Outcome.PARKED)
    assert ("record_sales", "parked") in _stops(event)
    OutboxEvent.objects.update(status=OutboxEvent.Status.HELD, published_at=None)
    assert ("kafka", "held") in _stops(event)


def test_an_order_leads_to_all_its_events_in_order() -> None:
    order_id = place(at=timezone.now(), amount="1")
    pay(order_id)
    travels = travels_of(order_id)
    assert travels is not None
    assert travels.order_id == order_id
    assert [journey.type for journey in travels.journeys] == [
        "ORDER_CREATED",
        "SIMPLE_ORDER_CREATED",
        "PAYMENT_COMPLETED",
    ]
    text = _run(order_id)
    assert text.startswith(f"Order {order_id}: 3 events\n")
    assert [text.count(name) for name in ("record_sales", "record_processed_events")] == [2, 1]


def test_events_that_retention_took_are_named() -> None:
    order_id = place(at=timezone.now(), lines=[("p1", 1, "1")])
    pay(order_id)
    first, second = order_events(order_id)
    first.delete()
    travels = travels_of(order_id)
    assert travels is not None
    assert travels.let_go == [first.event_id]
    assert [journey.type for journey in travels.journeys] == ["STOCK_RESERVED", second.type]
    assert f"Event {first.event_id} is done and has left the outbox." in _run(order_id)


def test_the_page_shows_ids_times_and_traces_each_on_one_line() -> None:
    trace = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "corr-1")
    order = NewOrder(customer_id="c", at=timezone.now(), amount=None, trace=trace)
    [placed] = services.place_orders([order])
    [event] = order_events(placed.order_id)
    event.created_at = COMMITTED
    event.save()
    _publish(event)
    _position(40)
    lines = _run(event.event_id).splitlines()
    assert lines[1:4] == [
        f"ORDER_CREATED {event.event_id}",
        f"topic order-events, key {placed.order_id}",
        f"correlation id corr-1, trace {trace.traceparent}",
    ]
    assert [" ".join(line.split()) for line in lines[5:8]] == [
        "request accepted web source /orders, correlation id corr-1, trace 0af7651916cd43dd8448eb211c80319c",
        f"{rfc3339(COMMITTED)} 0.0 0.0 outbox committed",
        "2026-03-11T22:00:00.020Z 20.0 20.0 kafka published worker-outbox order-events, partition 3,"
        " offset 57",
    ]
    assert len(lines) == 9
    assert "\x1b" not in "".join(lines)


def test_json_is_the_same_for_machines() -> None:
    event = _event()
    _publish(event)
    told = json.loads(_run(event.event_id, "--json"))
    assert told["order_id"] is None
    assert told["let_go"] == []
    [journey] = told["journeys"]
    assert UUID(journey["event_id"]) == event.event_id
    assert journey["stops"][1] == {
        "name": "kafka",
        "state": "published",
        "at": "2026-03-11T22:00:00.020Z",
        "total_ms": 20.0,
        "step_ms": 20.0,
        "detail": "order-events, partition 3, offset 57",
        "process": "worker-outbox",
    }
    assert [stop["at"] for stop in journey["stops"][2:]] == [None]


def test_an_unknown_id_and_no_id_are_told_apart() -> None:
    unknown = uuid4()
    with pytest.raises(CommandError, match=f"^Nothing has the id {unknown}: no post"):
        _run(unknown)
    with pytest.raises(CommandError, match=r"^'order-1' is not an id: give the UUID"):
        _run("order-1")


def test_the_journey_of_a_post_leads_to_its_slices() -> None:
    [post_id] = create_posts([new_post("ada", "hello")])
    [event] = OutboxEvent.objects.filter(topic="feed-events")
    said = told(str(post_id))
    assert f"Post {post_id}" in said
    assert f"POST_CREATED {event.event_id}" in said
    assert "No slice of it is waiting" in said

    waiting = FeedSlice.objects.create(
        kind="post", author_id="ada", post_id=post_id, bucket_to=512, size=7
    )
    FeedSlice.objects.create(
        kind="post", author_id="ada", post_id=post_id, failed_at=COMMITTED, error="oops", tries=5
    )
    said = told(str(post_id))
    assert f"slice {waiting.id}, post" in said
    assert "buckets 0 to 511, about 7 followers" in said
    assert ("failed" in said, "5 tries: oops" in said) == (True, True)

    delete_posts([post_id])
    OutboxEvent.objects.filter(event_id=event.event_id).delete()  # as retention does
    said = told(str(post_id))
    assert "POST_DELETED" in said
    assert f"Event {event.event_id} is done and has left the outbox." in said
    with pytest.raises(CommandError, match=f"^Nothing has the id {post_id + 2}: no post"):
        told(str(post_id + 2))


def told(id_: str) -> str:
    """What `manage.py event` says."""
    out = StringIO()
    call_command("event", id_, stdout=out)
    return out.getvalue()


def _sending(id_: str) -> Journey:
    """The journey of a notification."""
    travels = travels_of(UUID(id_))
    assert travels is not None
    [journey] = travels.journeys
    return journey


@pytest.mark.django_db(transaction=True)
def test_a_notification_is_told_from_request_to_answer() -> None:
    [accepted] = accept(SMS)
    journey = _sending(accepted.id)
    told = [(stop.name, stop.state) for stop in journey.stops]
    assert sorted(told[:2]) == [("outbox", "committed"), ("request", "accepted")]
    assert told[2] == ("kafka", "waiting")  # and then the handlers of the topic
    assert told[-1] == ("notification", "waiting")
    assert (journey.topic, journey.correlation_id) == ("notifications.normal", "c-1")
    [request] = [stop for stop in journey.stops if stop.name == "request"]
    assert request.at == Notification.objects.get().created_at
    assert "correlation id c-1" in request.detail
    assert {stop.process for stop in journey.stops if stop.name != "outbox"} == {
        *("web", "worker-outbox", "worker-notifications-normal")
    }
    created = Notification.objects.get().created_at
    at = [created + timedelta(seconds=number) for number in range(1, 5)]
    Attempt.objects.create(
        notification_id=accepted.id, number=1, at=at[1], provider="first", outcome="failed",
        status_code=503, latency_ms=40, error="Service Unavailable", next_attempt_at=at[2],
    )  # fmt: skip
    Attempt.objects.create(
        notification_id=accepted.id, number=2, at=at[2], provider="second", outcome="delivered"
    )
    Notification.objects.update(status="delivered", ready_at=at[0], sent_at=at[3], attempt=2)
    out = StringIO()
    call_command("event", accepted.id, stdout=out)
    text = out.getvalue()
    places = [text.index(word) for word in ("accepted", "ready", "first", "second", "delivered")]
    assert places == sorted(places)
    assert "attempt 1, answered 503, after 40 ms, Service Unavailable, next at" in text
    assert SMS["recipient"] not in text
    assert SMS["content"] not in text


@pytest.mark.django_db(transaction=True)
def test_a_notification_outlives_its_event() -> None:
    [accepted] = accept({**SMS, "scheduled_at": NEXT_MONTH})
    assert [(stop.name, stop.state) for stop in _sending(accepted.id).stops] == [
        ("request", "accepted"),
        ("notification", "scheduled"),
    ]
