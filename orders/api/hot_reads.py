"""Reading orders before Django, many requests by one statement; the view answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from orders import queries
from orders.api import representations
from orders.api.serializers import DEFAULT_LIMIT
from restapi.answers import Answer, json_answer
from restapi.hot_path import HotRead, Row, Statement
from restapi.json import to_json

__all__ = ["LIST_ORDERS", "READ_ORDER"]


# What is asked for again and again is put into words once: the same row says the same. Each row is
# read anew for each batch, so nothing old is ever told. An order is some kilobytes at most.
_remembered = lru_cache(maxsize=1024)


def _read_orders(order_ids: Sequence[str]) -> Statement:
    return queries.details_statement(set(order_ids))


def _orders(order_ids: Sequence[str], rows: Sequence[Row]) -> list[Answer | None]:
    found = dict(map(_order, rows))
    return [found.get(order_id) for order_id in order_ids]


@_remembered
def _order(row: Row) -> tuple[str, Answer]:
    [(order_id, detail)] = queries.details_of([row]).items()
    return order_id, json_answer(200, representations.detail(detail))


def _read_first_page(requests: Sequence[str]) -> Statement:
    return queries.page_statement(limit=DEFAULT_LIMIT)


def _first_page(requests: Sequence[str], rows: Sequence[Row]) -> list[Answer | None]:
    """One page for all that wait."""
    return [_page(tuple(rows))] * len(requests)


@_remembered
def _page(rows: tuple[Row, ...]) -> Answer:
    page = queries.page_of(rows, limit=DEFAULT_LIMIT)
    body = to_json([representations.summary(order) for order in page.orders])
    link = representations.next_page("/orders", {}, page.next)
    headers = ((b"link", link.encode()),) if link else ()
    return Answer(200, body, headers)


READ_ORDER = HotRead(
    path="/orders/{id}", route="orders/<str:order_id>", statement=_read_orders, answers=_orders
)
LIST_ORDERS = HotRead(
    path="/orders", route="orders", statement=_read_first_page, answers=_first_page
)
