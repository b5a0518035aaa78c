"""Canaries: they come through every handler and leave nothing behind, and who would park them gets none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis
from django.db import connection

from analytics.models import SalesFigure
from devtools.testing.pipeline import empty_pipeline, settles
from devtools.testing.processes import running_together, spec_of
from notifications.models import Notification
from operations import canary
from operations.models import Canary
from operations.tests.test_heartbeat import alone, server
from outbox import conf
from outbox.handlers.pause import pause_handler
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent
from outbox.process import heartbeat
from outbox.process.heartbeat import Heartbeat
from outbox.topics import CANARY_TYPE

__all__ = ["alone", "server"]

HANDLERS = {route.handler for route in conf.routes()}
TOPICS = {route.topic.name for route in conf.routes()}
PARTIES = (
    *("worker-outbox", "worker-effects", "bridge"),
    *("worker-notifications-high", "worker-notifications-normal", "worker-notifications-low"),
)


@pytest.fixture(autouse=True)
def on(settings: Any, transactional_db: None, alone: None) -> None:
    settings.CANARY = True


def later(seconds: float) -> None:
    """Canaries were sent so long ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE operations_canary SET at = at - make_interval(secs => %s)", (seconds,)
        )


def in_kafka(offset: int = 7) -> None:
    """As the drain leaves them."""
    OutboxEvent.objects.filter(type=CANARY_TYPE, status=0).update(
        status=1, partition=0, offset=offset, published_at="2026-12-01T00:00:00Z"
    )


def position(handler: str, next_offset: int) -> None:
    BridgePosition.objects.update_or_create(
        handler=handler,
        topic=conf.route_named(handler).topic.name,
        partition=0,
        defaults={"next_offset": next_offset, "topic_id": "11111111-2222-3333-4444-555555555555"},
    )


def test_each_topic_with_a_handler_gets_one_a_minute() -> None:
    assert canary.send_if_due() == len(TOPICS)
    assert set(OutboxEvent.objects.values_list("topic", flat=True)) == TOPICS
    assert set(OutboxEvent.objects.values_list("type", flat=True)) == {CANARY_TYPE}
    assert canary.send_if_due() == 0
    later(canary.EVERY_SECONDS + 1)
    assert canary.send_if_due() == len(TOPICS)
    later(3601)
    assert canary.send_if_due() == len(TOPICS)
    assert Canary.objects.count() == len(TOPICS), "those of an hour ago are gone"


def test_none_is_sent_while_they_are_off(settings: Any) -> None:
    settings.CANARY = False
    assert canary.send_if_due() == 0
    assert not OutboxEvent.objects.exists()


def test_none_is_sent_while_code_runs_that_would_park_them(
    server: redis.Redis, settings: Any
) -> None:
    Heartbeat("worker").beat()
    kept: dict[bytes, dict[str, Any]] = {}
    for key in server.scan_iter(f"{heartbeat._PREFIX}*"):
        kept[key] = msgspec.json.decode(server.get(key))  # type: ignore[arg-type]
    # a web process of other tests may have said something
    [(key, said)] = [(key, said) for key, said in kept.items() if said["kind"] == "worker"]
    del said["passes_canaries"]  # as code wrote it that knows nothing of them
    server.set(key, msgspec.json.encode(said), keepttl=True)
    assert canary.send_if_due() == 0
    server.delete(key)
    Heartbeat("worker").beat()
    assert canary.send_if_due() == len(TOPICS)


def test_none_is_sent_while_nobody_can_say_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise redis.ConnectionError

    monkeypatch.setattr(canary, "processes", away)
    assert canary.send_if_due() == 0


def test_the_age_is_that_of_the_newest_that_the_position_is_past() -> None:
    handler = "record_sales"
    position(handler, 7)
    assert canary.ages() == {}
    canary.send_if_due()
    assert canary.ages()[handler] < 60
    later(100)
    assert canary.ages()[handler] >= 100, "it is not in Kafka yet"
    in_kafka(offset=7)
    assert canary.ages()[handler] >= 100, "the position is before it"
    position(handler, 8)
    later(100)
    canary.send_if_due()
    assert canary.ages()[handler] >= 200, "the first one is through, the second one not"
    in_kafka(offset=9)
    position(handler, 10)
    assert canary.ages()[handler] < 60


def test_a_handler_that_is_paused_has_no_age() -> None:
    canary.send_if_due()
    assert set(canary.ages()) == HANDLERS
    pause_handler("record_sales", reason="a look", by="me")
    assert set(canary.ages()) == HANDLERS - {"record_sales"}


@pytest.fixture
def pipeline(topics: None) -> Iterator[None]:
    """Drain, bridges and workers, each a process of its own."""
    empty_pipeline()
    with running_together([spec_of(name) for name in PARTIES]):
        yield


def test_it_comes_through_every_handler_and_leaves_nothing(pipeline: None) -> None:
    before = dict(SalesFigure.objects.values_list("metric_name", "value"))
    assert canary.send_if_due() == len(TOPICS)
    later(1000)
    assert canary.send_if_due() == len(TOPICS)
    settles(lambda: set(canary.ages()) == HANDLERS and max(canary.ages().values()) < 1000)
    assert {handler for handler, age in canary.ages().items() if age < 1000} == HANDLERS
    sent = Canary.objects.values("event_id")
    assert not list(InboxReceipt.objects.filter(event_id__in=sent).values())
    assert not list(DeadLetter.objects.filter(event_id__in=sent).values())
    assert not Notification.objects.exists()
    assert dict(SalesFigure.objects.values_list("metric_name", "value")) == before
