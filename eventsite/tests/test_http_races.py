"""Fifty at once over real HTTP: each change of an order has one winner."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from devtools.testing.patience import PATIENCE
from devtools.testing.web import Answer, Web
from orders.models import Order, OrderChange
from orders.tests.samples import events_of

ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10}]}
RACERS = 50
EVENT_TYPES = {"pay": "PAYMENT_COMPLETED", "ship": "ORDER_SHIPPED", "cancel": "ORDER_CANCELLED"}
STATUSES = {"pay": "PAID", "ship": "SHIPPED", "cancel": "CANCELLED"}


def placed(web: Web, *steps: str) -> UUID:
    order_id = UUID(web.post("/orders", ORDER).json["orderId"])
    for step in steps:
        assert web.post(f"/orders/{order_id}/{step}").status == 200
    return order_id


def race(web: Web, order_id: UUID, *moves: str) -> list[str]:
    """The moves in turn until there are fifty, all at once; those that were answered 200."""
    start = threading.Barrier(RACERS)

    def run(move: str) -> tuple[str, Answer]:
        start.wait(PATIENCE)
        return move, web.request("POST", f"/orders/{order_id}/{move}", timeout=60)

    racers = [moves[number % len(moves)] for number in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as pool:
        answers = list(pool.map(run, racers))
    for move, answer in answers:
        if answer.status == 200:
            assert answer.json["status"] == STATUSES[move]
        else:
            assert answer.status == 409, answer.body
            assert answer.json.keys() == {"error", "details", "status", "allowed"}
            assert STATUSES[move] not in answer.json["allowed"]
    return [move for move, answer in answers if answer.status == 200]


def assert_history(order_id: UUID, *moves: str) -> None:
    """Exactly these moves have happened, in this order, each with its event."""
    steps = ["CREATED", *(STATUSES[move] for move in moves)]
    assert Order.objects.get(id=order_id).status == steps[-1]
    rows = OrderChange.objects.filter(order_id=order_id).order_by("id")
    assert list(rows.values_list("from_status", "to_status")) == list(
        zip([None, *steps], steps, strict=False)
    )
    types = [event["eventType"] for event in events_of(order_id)]
    assert types == ["ORDER_CREATED", *(EVENT_TYPES[move] for move in moves)]


def test_fifty_pay_and_one_wins(web: Web) -> None:
    order_id = placed(web)
    assert race(web, order_id, "pay") == ["pay"]
    assert_history(order_id, "pay")


@pytest.mark.parametrize("before", [(), ("pay",)])
def test_fifty_cancel_and_one_wins(web: Web, before: tuple[str, ...]) -> None:
    order_id = placed(web, *before)
    assert race(web, order_id, "cancel") == ["cancel"]
    assert_history(order_id, *before, "cancel")


def test_twenty_five_ship_and_as_many_cancel_and_one_wins(web: Web) -> None:
    order_id = placed(web, "pay")
    [winner] = race(web, order_id, "ship", "cancel")
    assert_history(order_id, "pay", winner)


def test_twenty_five_pay_and_as_many_cancel_and_none_wins_twice(web: Web) -> None:
    """A paid order may still be cancelled, a cancelled one never paid."""
    order_id = placed(web)
    won = race(web, order_id, "pay", "cancel")
    assert sorted(won) in (["cancel"], ["cancel", "pay"])
    assert_history(order_id, *sorted(won, reverse=True))
