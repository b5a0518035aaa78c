"""Reading orders before Django, many requests by one statement; the view answers the same."""

from __future__ import annotations

from collections.abc import Sequence

from orders import queries
from orders.api import representations
from orders.api.serializers import DEFAULT_LIMIT
from restapi.answers import Answer, json_answer
from restapi.hot_path import HotRead
from restapi.json import to_json

__all__ = ["LIST_ORDERS", "READ_ORDER"]


def _orders(order_ids: Sequence[str]) -> list[Answer | None]:
    found = {
        order_id: json_answer(200, representations.detail(detail))
        for order_id, detail in queries.order_details(set(order_ids)).items()
    }
    return [found.get(order_id) for order_id in order_ids]


def _first_page(requests: Sequence[str]) -> list[Answer | None]:
    """One page for all that wait."""
    page = queries.orders_page(limit=DEFAULT_LIMIT)
    body = to_json([representations.summary(order) for order in page.orders])
    link = representations.next_page("/orders", {}, page.next)
    headers = ((b"link", link.encode()),) if link else ()
    return [Answer(200, body, headers)] * len(requests)


READ_ORDER = HotRead(path="/orders/{id}", route="orders/<str:order_id>", find=_orders)
LIST_ORDERS = HotRead(path="/orders", route="orders", find=_first_page)
