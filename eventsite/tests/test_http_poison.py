"""One order that PostgreSQL refuses among others: it alone is told so, whichever way they go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from devtools.testing.web import Web
from orders.models import Order
from restapi.tests.sessions import other_session

OTHERS = 12


@contextmanager
def refusing(customer: str, sqlstate: str) -> Iterator[None]:
    """PostgreSQL refuses this customer's orders by this error."""
    with other_session() as opened:
        opened.execute(f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF new.customer_id = '{customer}' THEN RAISE 'no' USING ERRCODE = '{sqlstate}'; END IF;
            RETURN new; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()
            """)
        try:
            yield
        finally:
            opened.execute("DROP FUNCTION refuse CASCADE")


def together(web: Web, customers: list[str]) -> list[int]:
    """Statuses of their orders, which are one batch: they come while another one is held up."""

    def order(customer: str) -> int:
        return web.post("/orders", {"user_id": customer, "amount": 1}).status

    with ThreadPoolExecutor(len(customers) + 1) as pool, other_session() as opened:
        with opened.transaction():
            opened.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
            first = pool.submit(order, "first")
            time.sleep(0.3)
            rest = [pool.submit(order, customer) for customer in customers]
            time.sleep(0.5)
        assert first.result() == 200
        return [each.result() for each in rest]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("sqlstate", "told"),
    [
        ("23514", 500),  # a constraint
        ("22003", 500),  # a number out of range
        ("40001", 503),  # a conflict: try again
        ("40P01", 503),  # a deadlock
        ("54000", 503),  # a limit of PostgreSQL
    ],
)
def test_only_the_culprits_are_refused(web: Web, sqlstate: str, told: int) -> None:
    customers = [f"u{number}" for number in range(OTHERS)]
    customers[3] = customers[8] = "poison"
    with refusing("poison", sqlstate):
        statuses = together(web, customers)
    wanted = [told if customer == "poison" else 200 for customer in customers]
    assert statuses == wanted
    assert Order.objects.filter(customer_id="poison").count() == 0
    assert Order.objects.count() == 1 + OTHERS - 2
