"""The whole path with real processes, and what is left of it when they die or messages vanish."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from decimal import Decimal
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from analytics.queries import summary
from eventsite.probe import queries as probe_queries
from eventsite.probe import services as probe_services
from eventsite.tests.pipeline import settles
from eventsite.tests.processes import Process, child_environment, command_of, free_port, running
from eventsite.tests.web import Web, web_process
from orders.models import Order, ProcessedEvent
from outbox.drain import drain
from outbox.models import InboxReceipt, OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")

SETTLES = 45.0


def process(name: str, **environment: str) -> AbstractContextManager[Process]:
    """One of our processes, on this test's servers; entered when it is up."""
    port = free_port()
    environment = child_environment(METRICS_PORT=str(port), **environment)
    return running(command_of(name), environment, f"http://127.0.0.1:{port}/health")


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


def applied() -> int:
    return InboxReceipt.objects.count()


def test_an_order_goes_in_and_its_sales_figures_come_out(web: Web) -> None:
    with ExitStack() as started:
        for name in ("worker-outbox", "worker-effects", "beat", "bridge"):
            started.enter_context(process(name))
        simple = web.post("/orders", {"user_id": "u1", "amount": 42.5}).json
        order = web.post(
            "/orders",
            {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10}]},
        ).json
        assert web.post(f"/orders/{order['orderId']}/pay").status == 200
        assert settles(lambda: applied() == 4, within=SETTLES)
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


def said_with(text: str, logs: Sequence[Path]) -> set[str]:
    """Messages of the JSON log lines that hold a text somewhere."""
    lines = [line for log in logs for line in log.read_text().splitlines() if text in line]
    return {json.loads(line)["event"] for line in lines if line.endswith("}")}


def test_one_id_goes_from_the_request_to_the_effect() -> None:
    with ExitStack() as started:
        web = started.enter_context(web_process(LOG_LEVEL="INFO"))
        logs = [web.process.log]
        for name in ("worker-outbox", "worker-effects", "beat", "bridge"):
            logs.append(started.enter_context(process(name, LOG_LEVEL="INFO")).log)
        web.post("/orders", {"user_id": "u1", "amount": 1}, {"X-Request-ID": "follow-me-17"})
        steps = {"request", "drained", "sent", "applied"}
        assert settles(lambda: said_with("follow-me-17", logs) == steps, within=SETTLES)
    assert set(OutboxEvent.objects.values_list("correlation_id", flat=True)) == {"follow-me-17"}


def publish_probe_events(times: int, keys: int = 8) -> int:
    for _ in range(times):
        probe_services.draw([f"key-{number}" for number in range(keys)])
    drain()
    assert not OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists()
    return times * keys


def test_a_bridge_killed_between_trigger_and_commit_changes_nothing_twice(
    broker: redis.Redis,
) -> None:
    published = publish_probe_events(5)
    with process("bridge") as bridge:
        assert settles(lambda: broker.llen("probe") > 0, within=SETTLES)
        bridge.kill()
    assert applied() == 0
    with process("worker-effects"), process("bridge"):
        assert settles(lambda: applied() == published, within=SETTLES)
        more = publish_probe_events(3)
        assert settles(lambda: applied() == published + more, within=SETTLES)
    verdict = probe_queries.verdict()
    assert (verdict.applied, verdict.ok) == (published + more, True)


def test_a_lost_celery_message_is_sent_again(broker: redis.Redis) -> None:
    published = publish_probe_events(2)
    with process("bridge"):
        assert settles(lambda: broker.llen("probe") > 0, within=SETTLES)
        broker.flushall()
        with process("worker-effects"):
            assert settles(lambda: applied() == published, within=SETTLES)
    verdict = probe_queries.verdict()
    assert (verdict.applied, verdict.ok) == (published, True)


def test_a_worker_killed_in_the_middle_loses_nothing() -> None:
    with process("bridge"):
        with process("worker-effects") as worker:
            published = publish_probe_events(20)
            assert settles(lambda: applied() > 0, within=SETTLES)
            published += publish_probe_events(20)
            worker.kill()
        with process("worker-effects"):
            assert settles(lambda: applied() == published, within=SETTLES)
    assert probe_queries.verdict().ok


def test_two_bridges_and_two_beats_do_no_harm(web: Web) -> None:
    names = ("beat", "beat", "bridge", "bridge", "worker-outbox", "worker-outbox", "worker-effects")
    with ExitStack() as started:
        for name in names:
            started.enter_context(process(name))
        for number in range(40):
            assert web.post("/orders", {"user_id": "u1", "amount": number + 1}).status == 200
            probe_services.draw(["hot", f"cold-{number % 7}"])
        assert settles(lambda: applied() == 40 * 4, within=SETTLES)
    assert Order.objects.count() == ProcessedEvent.objects.count() == 40
    assert summary(now=timezone.now()).revenue_total == sum(range(1, 41))
    assert probe_queries.verdict().ok


@pytest.mark.parametrize("name", ["worker-outbox", "worker-effects", "beat", "bridge"])
def test_a_process_stops_when_told_to(name: str) -> None:
    with process(name) as running_process:
        time.sleep(1)
        assert running_process.stop() == 0
