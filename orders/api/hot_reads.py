"""Reading orders before Django, many requests by one statement; the view answers the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from orders import queries
from orders.api import representations
from orders.api.serializers import DEFAULT_LIMIT
from restapi.answers import Answer, json_answer
from restapi.hot_path import HotRead, Row, Statement
from restapi.json import to_json

__all__ = ["LIST_ORDERS", "READ_ORDER"]


def _read_orders(order_ids: Sequence[str]) -> Statement:
    return queries.details_statement(set(order_ids))


def _orders(order_ids: Sequence[str], rows: Sequence[Row]) -> Iterator[Answer | None]:
    details = queries.details_of(rows)
    told: dict[str, Answer] = {}
    for order_id in order_ids:
        if order_id in details and order_id not in told:
            told[order_id] = json_answer(200, representations.detail(details[order_id]))
        yield told.get(order_id)


def _read_first_page(requests: Sequence[str]) -> Statement:
    return queries.page_statement(limit=DEFAULT_LIMIT)


def _first_page(requests: Sequence[str], rows: Sequence[Row]) -> Sequence[Answer | None]:
    """One page for all that wait."""
    page = queries.page_of(rows, limit=DEFAULT_LIMIT)
    body = b",".join(map(_summary, rows[: len(page.orders)]))
    link = representations.next_page("/orders", {}, page.next)
    headers = ((b"link", link.encode()),) if link else ()
    return [Answer(200, b"[%b]" % body, headers)] * len(requests)


@lru_cache(maxsize=256)
def _summary(row: Row) -> bytes:
    """An entry of the list. An order stays on the first page for many batches, and is put into
    words once: rows are read anew each time, and the same row says the same."""
    return to_json(representations.summary(queries.order_of(row)))


READ_ORDER = HotRead(
    path="/orders/{id}", route="orders/<str:order_id>", statement=_read_orders, answers=_orders
)
LIST_ORDERS = HotRead(
    path="/orders", route="orders", statement=_read_first_page, answers=_first_page
)
