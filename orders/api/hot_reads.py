"""Reading orders before Django, many requests by one statement; the view answers the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from orders import queries
from orders.api.serializers import DEFAULT_LIMIT
from orders.models import OrderStatus
from orders.queries import Cursor, FirstPage, OrderPage
from outbox.database.round_trips import Row, Statement
from restapi.answers import Answer, json_answer
from restapi.hot_path import Asked, HotRead
from restapi.hot_query import one_of, whole_number

__all__ = ["LIST_ORDERS", "READ_ORDER", "next_page"]


def _orders(order_ids: Sequence[str], rows: Sequence[Row]) -> Sequence[Answer | None]:
    found = {order_id: json_answer(200, msgspec.Raw(words)) for order_id, words in rows}
    return list(map(found.get, order_ids))


class _Wanted(NamedTuple):
    """A page, and the parameters as they were given, which its Link repeats."""

    page: FirstPage
    given: tuple[tuple[str, Any], ...] = ()


_PLAIN = _Wanted(FirstPage(DEFAULT_LIMIT))


def _wanted(asked: Asked) -> _Wanted:
    if not asked.given:
        return _PLAIN
    page = FirstPage(asked.given.get("limit", DEFAULT_LIMIT), asked.given.get("status"))
    return _Wanted(page, tuple(asked.given.items()))


def _all_plain(wanted: Sequence[_Wanted]) -> bool:
    return wanted.count(_PLAIN) == len(wanted)


def _pages_asked(wanted: Sequence[_Wanted]) -> list[FirstPage]:
    """Each once, in an order that is the same for the statement and its rows."""
    return list(dict.fromkeys(each.page for each in wanted))


def _read_pages(wanted: Sequence[_Wanted]) -> Statement:
    if _all_plain(wanted):
        return queries.page_statement(limit=DEFAULT_LIMIT)
    return queries.first_pages_statement(_pages_asked(wanted))


def _pages(wanted: Sequence[_Wanted], rows: Sequence[Row]) -> Sequence[Answer | None]:
    """One answer for all that want the same."""
    if _all_plain(wanted):
        return [_answer(queries.page_of(rows, limit=DEFAULT_LIMIT), {})] * len(wanted)
    asked = _pages_asked(wanted)
    found = dict(zip(asked, queries.first_pages_of(rows, asked), strict=True))
    answers = {each: _answer(found[each.page], dict(each.given)) for each in set(wanted)}
    return [answers[each] for each in wanted]


def _answer(page: OrderPage, given: Mapping[str, Any]) -> Answer:
    link = next_page("/orders", given, page.next)
    headers = ((b"link", link.encode()),) if link else ()
    return json_answer(200, [msgspec.Raw(order.words) for order in page.orders], headers)


def next_page(path: str, parameters: Mapping[str, str], cursor: Cursor | None) -> str:
    """The Link header of a page that was asked for so; empty on the last one."""
    if cursor is None:
        return ""
    return f'<{path}?{urlencode({**parameters, "cursor": cursor.to_text()})}>; rel="next"'


READ_ORDER = HotRead(
    path="/orders/{id}",
    route="orders/<str:order_id>",
    statement=lambda order_ids: queries.orders_in_words(set(order_ids)),
    answers=_orders,
)
LIST_ORDERS = HotRead(
    path="/orders",
    route="orders",
    parameters={"limit": whole_number(1, 100), "status": one_of(OrderStatus.values)},
    read=_wanted,
    # The plain page is one for all, whatever waits for it.
    rows=lambda wanted: 1 if wanted is _PLAIN else wanted.page.limit,
    statement=_read_pages,
    answers=_pages,
)
