"""A topic without a handler here goes the whole way all the same: created, drained, kept, purged."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db.models import F

from devtools.testing import measure
from devtools.testing.histories import cancel, place
from orders.events import STOCK_TOPIC
from orders.models import ProcessedEvent
from outbox import conf
from outbox.conf import Retention
from outbox.drain.run import Drain
from outbox.kafka import admin
from outbox.kafka.log_reader import read_topic
from outbox.models import InboxReceipt, OutboxEvent
from outbox.queries import published_ends
from outbox.topics import CANARY_TYPE, lane_of, partition_of
from outbox.upkeep import purge

pytestmark = pytest.mark.usefixtures("pipeline")

NOW = datetime(2026, 3, 12, tzinfo=UTC)


def test_nobody_here_listens_to_stock() -> None:
    assert STOCK_TOPIC in conf.topics_for_others()
    assert STOCK_TOPIC not in {route.topic for route in conf.routes()}


def test_stock_events_reach_kafka_in_the_order_of_their_order() -> None:
    order_id = place(at=NOW, lines=[("p1", 3, "1"), ("p1", 1, "1"), ("p2", 10_000, "0")])
    cancel(order_id)
    Drain().run()
    found = [
        message
        for message in read_topic("stock", ends=published_ends("stock"))
        if message.key == str(order_id).encode()
    ]
    lines = [("p1", 3), ("p1", 1), ("p2", 10_000)]
    values = [json.loads(message.value or b"") for message in found]
    assert [(each["eventType"], each["productId"], each["quantity"]) for each in values] == [
        (kind, *line) for kind in ("STOCK_RESERVED", "STOCK_RELEASED") for line in lines
    ]
    state = admin.topic_states(["stock"])["stock"]
    assert len(state.latest) == STOCK_TOPIC.partitions
    partition = partition_of(lane_of(str(order_id)), STOCK_TOPIC.partitions)
    assert {message.partition for message in found} == {partition}
    headers = dict(found[0].headers)
    assert headers["ce_id"] == values[0]["eventId"].encode()
    assert (headers["ce_type"], headers["ce_subject"]) == (
        b"STOCK_RESERVED",
        str(order_id).encode(),
    )


def test_they_are_done_when_they_are_published() -> None:
    place(at=NOW, lines=[("p1", 1, "1"), ("p2", 1, "1")])
    before = measure.counts()
    assert (before.events, before.heard, before.published, before.applied) == (3, 1, 0, 0)
    Drain().run()
    assert not measure.counts().settled  # the figures are still to come
    order_event = OutboxEvent.objects.get(topic="order-events")
    InboxReceipt.objects.create(handler="record_sales", event_id=order_event.event_id)
    assert measure.counts().settled
    # What a handler has made of another producer's events says nothing about ours.
    InboxReceipt.objects.create(handler="record_sales", event_id=uuid4())
    ProcessedEvent.objects.create(event_id=uuid4(), user_id="theirs", amount=1)
    assert measure.counts().settled
    assert measure.counts().processed_events == 0
    # A canary passes its handlers by, and leaves no receipt.
    place(at=NOW, amount="1")
    Drain().run()
    assert not measure.counts().settled
    OutboxEvent.objects.exclude(event_id=order_event.event_id).update(type=CANARY_TYPE)
    assert measure.counts().settled


def test_the_purge_lets_them_go_without_a_receipt() -> None:
    place(at=NOW, lines=[("p1", 1, "1")])
    Drain().run()
    OutboxEvent.objects.update(
        created_at=F("created_at") - timedelta(hours=21),
        published_at=F("published_at") - timedelta(hours=21),
    )
    purge.purge(Retention(receipts=10, outbox=20, dead_letters=100))
    assert [event.topic for event in OutboxEvent.objects.all()] == ["order-events"]
