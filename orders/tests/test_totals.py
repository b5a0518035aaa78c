"""An order's total is exact, whatever it adds up."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.models import Order
from orders.services import NewOrder, NewOrderLine, place_orders
from orders.tests.samples import NOW, events_of, line, order

MOST_CENTS = 999_999_999_999

Lines = list[tuple[int, int]]  # (quantity, price in cents)
lines_of_an_order = st.lists(
    st.tuples(st.integers(1, 10_000), st.integers(0, MOST_CENTS)), min_size=1, max_size=100
)


def order_of(lines: Lines) -> NewOrder:
    return NewOrder(
        customer_id="c",
        at=NOW,
        lines=tuple(
            NewOrderLine(product_id="p", quantity=quantity, price=Decimal(cents).scaleb(-2))
            for quantity, cents in lines
        ),
    )


def total_in_cents(lines: Lines) -> int:
    return sum(quantity * cents for quantity, cents in lines)


@given(lines_of_an_order)
def test_total_equals_the_sum_of_whole_cents(lines: Lines) -> None:
    assert order_of(lines).total * 100 == total_in_cents(lines)


@pytest.mark.django_db
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines_of_an_order)
def test_total_is_stored_and_told_exactly(lines: Lines) -> None:
    [placed] = place_orders([order_of(lines)])
    exact = Decimal(total_in_cents(lines)).scaleb(-2)
    assert placed.total == exact
    assert Order.objects.get(id=placed.order_id).total == exact
    [event] = events_of(placed.order_id)
    assert event["totalPrice"] == exact
    priced = sum(item["quantity"] * item["price"] for item in event["items"])
    assert priced == exact


@pytest.mark.django_db
def test_the_largest_order_there_is() -> None:
    [placed] = place_orders([order_of([(10_000, MOST_CENTS)] * 100)])
    assert Order.objects.get().total == placed.total == Decimal("9999999999990000.00")


def test_where_floating_point_goes_wrong() -> None:
    many = [("9999999999.99", 9_999)] * 99 + [("0.01", 1), ("0.07", 3)]
    exact = order(*(line(price=price, quantity=quantity) for price, quantity in many)).total
    floating = sum((quantity * float(price) for price, quantity in many), 0.0)
    assert exact == Decimal("9899009999990101.21")
    assert Decimal(str(round(floating, 2))) != exact
