"""The verdict of `manage.py generate_load` on accepted orders, by the database and over HTTP alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import connection

from analytics.models import SalesMetric
from analytics.services import fold_additions
from devtools.testing.histories import apply, order_events
from devtools.testing.processes import free_port
from devtools.testing.web import Web
from loadtest.generator import GeneratorPlan, generate
from loadtest.tally import LoadTally
from loadtest.tests.conftest import stub_process
from loadtest.verify import LoadVerdict, verify_by_database, verify_by_http
from orders.models import Order
from orders.services import NewOrder, NewOrderLine, place_orders
from outbox.envelope import TraceContext
from outbox.models import InboxReceipt, OutboxEvent


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    with stub_process() as url:
        yield url


class Run:
    """Ten orders over HTTP, and their effects when they are asked for."""

    def __init__(self, web: Web, kind: str = "orders") -> None:
        self.plan = GeneratorPlan(
            url=f"http://127.0.0.1:{web.port}", rate=100, seconds=0.1, arrivals="even", kind=kind
        )
        self.tally = generate(self.plan)
        assert (self.tally.accepted, self.tally.errors) == (10, {})
        [(self.ids, _)] = self.tally.batches()

    def verdict(self, within: float = 0.0) -> LoadVerdict:
        return verify_by_database(self.tally, self.plan.run, within=within)


@pytest.fixture
def run(web: Web) -> Run:
    """Ten orders, applied."""
    made = Run(web)
    apply(order_events())
    return made


def delete(sql: str, value: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, (value,))


def place_again(run: Run, number: int) -> UUID:
    """What a server would do that takes one request twice."""
    order = NewOrder(
        customer_id="c1",
        at=datetime.now(UTC),
        lines=(NewOrderLine(product_id="p1", quantity=1, price=Decimal(1)),),
        trace=TraceContext(correlation_id=f"{run.plan.run}-{number}"),
    )
    [placed] = place_orders([order])
    apply(order_events(placed.order_id))
    return UUID(placed.order_id)


def test_whole(run: Run) -> None:
    found = run.verdict()
    assert (found.lost, found.duplicates, found.figures, found.unanswered) == (0, 0, 0, 0)
    assert found.effect is not None
    assert found.effect.count == 10
    assert found.effect.max > 0
    assert Order.objects.count() == 10


def test_nothing_is_applied_yet(web: Web) -> None:
    found = Run(web).verdict(within=0.3)
    assert (found.missing, found.without_effect, found.lost) == (0, 10, 10)
    assert found.waited >= 0.3
    assert set(found.examples) == set(Order.objects.values_list("id", flat=True))


def test_a_removed_order_is_found(run: Run) -> None:
    gone = run.ids[3]
    for sql in (
        "DELETE FROM order_lines WHERE order_id = %s",
        "DELETE FROM order_changes WHERE order_id = %s",
        "DELETE FROM orders WHERE id = %s",
    ):
        delete(sql, gone)
    found = run.verdict()
    assert (found.missing, found.without_effect, found.lost) == (1, 0, 1)
    assert found.examples == [gone]
    assert found.figures  # they still hold it


def test_an_order_whose_effect_is_lost_is_found(run: Run) -> None:
    event = order_events(run.ids[3])[0]
    InboxReceipt.objects.filter(event_id=event.event_id).delete()
    found = run.verdict()
    assert (found.missing, found.without_effect, found.examples) == (0, 1, [run.ids[3]])


def test_a_parked_effect_is_none(run: Run) -> None:
    event = order_events(run.ids[3])[0]
    InboxReceipt.objects.filter(event_id=event.event_id).update(outcome=InboxReceipt.Outcome.PARKED)
    assert run.verdict().without_effect == 1


def test_the_second_event_of_a_simple_order_counts_too(web: Web) -> None:
    made = Run(web, kind="simple")
    apply(order_events())
    assert made.verdict().without_effect == 10
    for event in OutboxEvent.objects.filter(topic="orders.created"):
        InboxReceipt.objects.create(handler="record_processed_events", event_id=event.event_id)
    assert made.verdict().lost == 0


def test_what_the_outbox_let_go_is_done(run: Run) -> None:
    OutboxEvent.objects.all().delete()
    found = run.verdict()
    assert (found.lost, found.stored_twice) == (0, 0)


def test_a_request_stored_twice_is_found(run: Run) -> None:
    place_again(run, 4)
    found = run.verdict()
    assert (found.stored_twice, found.duplicates, found.lost) == (1, 1, 0)


def test_an_order_without_an_answer_is_no_duplicate(run: Run) -> None:
    place_again(run, 11)
    found = run.verdict()
    assert (found.unanswered, found.duplicates) == (1, 0)


def test_orders_of_others_do_not_count(run: Run) -> None:
    other = GeneratorPlan(url="http://x", seconds=1).run
    place_orders(
        [
            NewOrder(
                customer_id="c1",
                at=datetime.now(UTC),
                amount=None,
                trace=TraceContext(correlation_id=f"{other}-1"),
            )
        ]
    )
    found = run.verdict()
    assert (found.unanswered, found.duplicates) == (0, 0)


def test_an_effect_applied_twice_is_in_the_figures(run: Run) -> None:
    fold_additions()
    metric = SalesMetric.objects.get(metric_name="orders_total", dimension="all")
    SalesMetric.objects.filter(metric_name=metric.metric_name, dimension=metric.dimension).update(
        value=metric.value + 1
    )
    assert run.verdict().figures == 1


def test_the_same_answer_twice_is_a_duplicate(stub: str) -> None:
    plan = GeneratorPlan(url=f"{stub}/same", rate=50, seconds=0.1, arrivals="even")
    found = verify_by_http(generate(plan), plan.url, timeout=5, headers={})
    assert (found.answered_twice, found.duplicates) == (4, None)


# Over HTTP alone


def accepted(url: str) -> tuple[LoadTally, LoadVerdict]:
    tally = generate(GeneratorPlan(url=url, rate=100, seconds=0.2, arrivals="even"))
    assert tally.accepted == 20
    return tally, verify_by_http(tally, url, timeout=5, headers={})


def test_over_http_each_order_is_asked_for(stub: str) -> None:
    _, found = accepted(f"{stub}/keeps")
    assert (found.missing, found.unchecked) == (0, 0)
    assert (found.lost, found.without_effect, found.effect, found.figures) == (None,) * 4


def test_over_http_a_forgotten_order_is_found(stub: str) -> None:
    _, found = accepted(f"{stub}/forgets")
    assert (found.missing, found.unchecked, len(found.examples)) == (4, 0, 4)


def test_over_http_a_server_that_is_gone_leaves_orders_unknown(stub: str) -> None:
    tally, _ = accepted(f"{stub}/keeps")
    found = verify_by_http(tally, f"http://127.0.0.1:{free_port()}", timeout=1, headers={})
    assert (found.missing, found.unchecked) == (0, 20)


def test_over_real_http(run: Run) -> None:
    gone = run.ids[0]
    for table, column in (
        ("order_lines", "order_id"),
        ("order_changes", "order_id"),
        ("orders", "id"),
    ):
        delete(f"DELETE FROM {table} WHERE {column} = %s", gone)
    found = verify_by_http(run.tally, run.plan.url, timeout=10, headers={})
    assert (found.missing, found.examples) == (1, [gone])


def test_its_headers_go_with_every_request(web: Web) -> None:
    """A key that is sent is looked at on the local stack too."""
    url, wrong = f"http://127.0.0.1:{web.port}", {"X-API-Key": "nobody's"}
    plan = GeneratorPlan(url=url, rate=100, seconds=0.1, arrivals="even", headers=wrong)
    assert generate(plan).errors == {"status 401": 10}
    tally = generate(replace(plan, headers={}))
    assert tally.accepted == 10
    assert verify_by_http(tally, url, timeout=10, headers=wrong).unchecked == 10
