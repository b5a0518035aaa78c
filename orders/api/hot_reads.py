"""Reading orders before Django, many requests by one statement; the view answers the same."""

from __future__ import annotations

from collections.abc import Sequence

from orders import queries
from orders.api.representations import listed, next_page, whole
from orders.api.serializers import DEFAULT_LIMIT
from outbox.round_trips import Row, Statement
from restapi.answers import Answer, json_answer
from restapi.hot_path import HotRead

__all__ = ["LIST_ORDERS", "READ_ORDER"]


def _read_orders(order_ids: Sequence[str]) -> Statement:
    return queries.orders_in_words(set(order_ids))


def _orders(order_ids: Sequence[str], rows: Sequence[Row]) -> Sequence[Answer | None]:
    told = {order_id: json_answer(200, whole(words)) for order_id, words in rows}
    return list(map(told.get, order_ids))


def _read_first_page(requests: Sequence[str]) -> Statement:
    return queries.page_statement(limit=DEFAULT_LIMIT)


def _first_page(requests: Sequence[str], rows: Sequence[Row]) -> Sequence[Answer | None]:
    """One page for all that wait."""
    page = queries.page_of(rows, limit=DEFAULT_LIMIT)
    link = next_page("/orders", {}, page.next)
    headers = ((b"link", link.encode()),) if link else ()
    return [json_answer(200, listed(page.orders), headers)] * len(requests)


READ_ORDER = HotRead(
    path="/orders/{id}", route="orders/<str:order_id>", statement=_read_orders, answers=_orders
)
LIST_ORDERS = HotRead(
    path="/orders", route="orders", statement=_read_first_page, answers=_first_page
)
