"""Money is exact from the request to the figures: amounts that a float cannot hold go the whole way,
over HTTP, through the outbox and Kafka into the figures, and are told again to the cent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command

from analytics import services as analytics
from analytics.models import SalesFigure
from devtools.testing.pipeline import chunks_since
from devtools.testing.web import JSON, Web
from orders import services as orders
from orders.models import Order, ProcessedEvent
from outbox.drain.run import Drain
from outbox.handlers import task
from outbox.kafka.log_reader import read_topic
from outbox.queries import published_ends

pytestmark = pytest.mark.usefixtures("pipeline")

MOST = "9999999999.99"
# Prices and quantities as they are written, the total as it must be told, and what floats make of it.
CASES: list[tuple[list[tuple[str, int]], str, float]] = [
    ([("0.1", 1), ("0.2", 1)], "0.3", 0.1 + 0.2),
    ([("1.1", 3)], "3.3", 1.1 * 3),
    ([("0.07", 100)], "7", 0.07 * 100),
    ([("0.01", 1)] * 100, "1", sum([0.01] * 100)),
    ([(MOST, 10_000)] * 99 + [("0.01", 1)], "9899999999990100.01", 9899999999990100.01),
    ([(MOST, 10_000)] * 100, "9999999999990000", sum([9999999999.99 * 10_000] * 100)),
]
SIMPLE = ["0.1"] * 30 + [MOST, "4503599627.05"]
SUM_OF_ALL = "19900014503579741.65"


def post_order(web: Web, lines: Sequence[tuple[str, int]]) -> str:
    """The order's id. Numbers are written into the body as they are, past every float of ours."""
    items = ",".join(
        f'{{"productId":"p{number}","quantity":{quantity},"price":{price}}}'
        for number, (price, quantity) in enumerate(lines)
    )
    body = f'{{"customerId":"c1","items":[{items}]}}'.encode()
    answer = web.request("POST", "/orders", body, JSON)
    assert answer.status == 201, answer.body
    return str(answer.json["orderId"])


def post_simple(web: Web, amount: str) -> str:
    body = f'{{"user_id":"u1","amount":{amount}}}'.encode()
    answer = web.request("POST", "/orders", body, JSON)
    assert answer.status == 200, answer.body
    return str(answer.json["order_id"])


def texts(body: bytes) -> Any:
    """JSON with every number as it is written."""
    return json.loads(body, parse_float=str, parse_int=str)


def in_kafka(topic: str) -> dict[str, Any]:
    """key -> the last value, numbers as they are written."""
    messages = read_topic(topic, ends=published_ends(topic))
    return {(each.key or b"").decode(): texts(each.value or b"") for each in messages}


def apply_everything() -> None:
    Drain().run()
    for handler, effect in (
        ("record_sales", analytics.record_sales),
        ("record_processed_events", orders.record_processed_events),
    ):
        for chunk in list(chunks_since(handler)):
            task.apply_chunks(handler=handler, chunks=[chunk], effect=effect)


def test_the_cases_are_such_that_a_float_would_fail() -> None:
    right = [Decimal(as_float) == Decimal(told) for _, told, as_float in CASES]
    assert right == [False] * 5 + [True]  # the last one is only the largest there can be
    total = sum(as_float for *_, as_float in CASES) + sum(map(float, SIMPLE))
    assert Decimal(total) != Decimal(SUM_OF_ALL)
    exact = sum(Decimal(told) for _, told, _ in CASES) + sum(map(Decimal, SIMPLE))
    assert exact == Decimal(SUM_OF_ALL)


def test_to_the_cent_from_the_request_to_the_figures(web: Web) -> None:
    totals = {post_order(web, lines): told for lines, told, _ in CASES}
    totals |= {post_simple(web, amount): amount for amount in SIMPLE}
    assert {str(order.id): order.total for order in Order.objects.all()} == {
        order_id: Decimal(total) for order_id, total in totals.items()
    }
    apply_everything()

    listed = texts(web.get("/orders?limit=100").body)
    assert {each["orderId"]: each["totalPrice"] for each in listed} == totals
    largest = texts(web.get(f"/orders/{list(totals)[len(CASES) - 1]}").body)
    assert {item["price"] for item in largest["items"]} == {MOST}
    sent = in_kafka("order-events")
    assert {order_id: sent[order_id]["totalPrice"] for order_id in totals} == totals
    sent = in_kafka("orders.created")
    simple = list(totals)[len(CASES) :]
    assert [sent[order_id]["amount"] for order_id in simple] == SIMPLE
    amounts = ProcessedEvent.objects.order_by("id").values_list("amount", flat=True)
    assert sorted(amounts) == sorted(map(Decimal, SIMPLE))

    assert texts(web.get("/analytics/summary").body)["revenue_total"] == SUM_OF_ALL
    rows = texts(web.get("/analytics/metrics?metric_name=revenue_total").body)
    days = [Decimal(row["value"]) for row in rows if row["dimension"] != "all"]
    assert sum(days) == Decimal(SUM_OF_ALL)
    call_command("check_sales_metrics", verbosity=0)

    for order_id in list(totals)[1:]:
        assert web.post(f"/orders/{order_id}/cancel").status == 200
    apply_everything()
    assert texts(web.get("/analytics/summary").body)["revenue_total"] == "0.3"
    figure = SalesFigure.objects.get(metric_name="revenue_total", dimension="all")
    assert figure.value == Decimal("0.3")
    call_command("check_sales_metrics", verbosity=0)
