"""Bodies and moments: repeatable, skewed, exact."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from loadtest.arrivals import evenly, poisson
from loadtest.payloads import Payloads
from orders.api.serializers import validated_order


def bodies(count: int, **options: Any) -> list[bytes]:
    payloads = Payloads(**{"seed": 1} | options)
    return [payloads.next().body for _ in range(count)]


@pytest.mark.parametrize("kind", ["orders", "simple", "mixed"])
def test_the_same_seed_makes_the_same_orders(kind: str) -> None:
    assert bodies(200, kind=kind) == bodies(200, kind=kind)
    assert bodies(200, kind=kind) != bodies(200, kind=kind, seed=2)


@pytest.mark.parametrize(
    ("kind", "simple"), [("orders", {False}), ("simple", {True}), ("mixed", {True, False})]
)
def test_each_is_a_valid_order_of_its_kind(kind: str, simple: set[bool]) -> None:
    parsed = [json.loads(body, parse_float=Decimal) for body in bodies(300, kind=kind)]
    assert {validated_order(body)[0] for body in parsed} == simple


def test_the_lines_are_counted() -> None:
    payloads = Payloads(seed=1, kind="mixed")
    for body, lines in (payloads.next() for _ in range(100)):
        assert len(json.loads(body).get("items", ())) == lines


def test_prices_have_two_digits_and_belong_to_the_product() -> None:
    prices: dict[str, set[str]] = {}
    for body in bodies(3000):
        for item in json.loads(body, parse_float=str)["items"]:
            prices.setdefault(item["productId"], set()).add(str(item["price"]))
    assert all(len(each) == 1 for each in prices.values())
    texts = {price for each in prices.values() for price in each}
    assert all(len(price.partition(".")[2]) == 2 for price in texts)
    assert len(texts) > 100


def test_few_products_sell_most_and_many_customers_buy() -> None:
    sold: Counter[str] = Counter()
    customers = set()
    for body in bodies(5000, customers=800):
        order = json.loads(body)
        customers.add(order["customerId"])
        sold.update(item["productId"] for item in order["items"])
    best = [name for name, _ in sold.most_common(3)]
    assert best[0] == "product-0001"
    assert sum(count for _, count in sold.most_common(10)) > 0.35 * sold.total()
    assert len(sold) > 500
    assert 700 < len(customers) <= 800


def test_even_arrivals_are_equally_far_apart() -> None:
    assert list(itertools.islice(evenly(4), 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_poisson_arrivals_have_the_rate_and_no_memory() -> None:
    moments = list(itertools.islice(poisson(100, random.Random(5)), 20_000))
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    assert moments[-1] == pytest.approx(200, rel=0.05)
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)  # even ones would have 0
