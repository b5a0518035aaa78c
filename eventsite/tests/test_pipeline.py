"""The whole path with real processes, and what is left of it when they die or messages vanish."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from analytics.queries import summary
from devtools.localstack import PLAN
from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.pipeline import settles
from devtools.testing.processes import Process, running_together, spec_of
from devtools.testing.web import Web
from orders.models import Order, ProcessedEvent
from outbox.drain.run import Drain
from outbox.models import InboxReceipt, OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")


def processes(*names: str, **environment: str) -> AbstractContextManager[list[Process]]:
    """Some of our processes, on this test's servers; entered when all are up."""
    return running_together([spec_of(name, **environment) for name in names])


@contextmanager
def process(name: str) -> Iterator[Process]:
    """One of them."""
    with processes(name) as [started]:
        yield started


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


def applied() -> int:
    return InboxReceipt.objects.count()


def said_with(text: str, logs: Sequence[Path]) -> set[str]:
    """Messages of the JSON log lines that hold a text somewhere."""
    lines = [line for log in logs for line in log.read_text().splitlines() if text in line]
    return {json.loads(line)["event"] for line in lines if line.endswith("}")}


def test_an_order_goes_in_and_its_figures_come_out_under_one_id() -> None:
    with processes(*PLAN.pipeline, LOG_LEVEL="INFO") as started:
        web = Web(urlsplit(started[0].health).port or 0, started[0])
        followed = {"X-Request-ID": "follow-me-17"}
        simple = web.post("/orders", {"user_id": "u1", "amount": 42.5}, followed).json
        order = web.post(
            "/orders",
            {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10}]},
        ).json
        assert web.post(f"/orders/{order['orderId']}/pay").status == 200
        assert settles(lambda: applied() == 4)
        logs = [each.log for each in started]
        steps = {"request", "drained", "sent", "applied"}
        assert settles(lambda: said_with("follow-me-17", logs) == steps)
    figures = summary(now=timezone.now())
    assert (figures.orders_total, figures.revenue_total) == (2, Decimal("62.50"))
    assert figures.by_status == {"CREATED": 1, "PAID": 1, "SHIPPED": 0, "CANCELLED": 0}
    assert figures.top_products == [("p1", 2)]
    [row] = ProcessedEvent.objects.all()
    assert (str(row.event_id), row.user_id, row.amount) == (
        simple["event_id"],
        "u1",
        Decimal("42.5"),
    )
    call_command("check_sales_metrics", verbosity=0)
    followed_events = OutboxEvent.objects.filter(correlation_id="follow-me-17")
    assert followed_events.count() == 2  # ORDER_CREATED and orders.created


def publish_probe_events(times: int, keys: int = 8) -> int:
    for _ in range(times):
        probe_services.draw([f"key-{number}" for number in range(keys)])
    Drain().run()
    assert not OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists()
    return times * keys


@needs_apache_kafka  # Tansu does not miss a member that was killed
def test_a_bridge_killed_between_trigger_and_commit_changes_nothing_twice(
    broker: redis.Redis,
) -> None:
    published = publish_probe_events(5)
    with process("bridge") as bridge:
        assert settles(lambda: broker.llen("probe") > 0)
        bridge.kill()
    assert applied() == 0
    with processes("worker-effects", "bridge"):
        assert settles(lambda: applied() == published)
        more = publish_probe_events(3)
        assert settles(lambda: applied() == published + more)
    verdict = probe_queries.verdict()
    assert (verdict.applied, verdict.ok) == (published + more, True)


def test_a_lost_celery_message_is_sent_again(broker: redis.Redis) -> None:
    published = publish_probe_events(2)
    with process("bridge"):
        assert settles(lambda: broker.llen("probe") > 0)
        broker.flushall()
        with process("worker-effects"):
            assert settles(lambda: applied() == published)
    verdict = probe_queries.verdict()
    assert (verdict.applied, verdict.ok) == (published, True)


def test_a_worker_killed_in_the_middle_loses_nothing() -> None:
    with processes("bridge", "worker-effects") as [_, worker]:
        published = publish_probe_events(20)
        assert settles(lambda: applied() > 0)
        published += publish_probe_events(20)
        worker.kill()
        with process("worker-effects"):
            assert settles(lambda: applied() == published)
    assert probe_queries.verdict().ok


def test_two_bridges_and_two_beats_do_no_harm(web: Web) -> None:
    names = ("beat", "beat", "bridge", "bridge", "worker-outbox", "worker-outbox", "worker-effects")
    with processes(*names):
        for number in range(40):
            assert web.post("/orders", {"user_id": "u1", "amount": number + 1}).status == 200
            probe_services.draw(["hot", f"cold-{number % 7}"])
        assert settles(lambda: applied() == 40 * 4)
    assert Order.objects.count() == ProcessedEvent.objects.count() == 40
    assert summary(now=timezone.now()).revenue_total == sum(range(1, 41))
    assert probe_queries.verdict().ok
