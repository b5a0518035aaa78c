"""Reading orders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

from orders.models import Order, OrderChange
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import row_of, rows_of
from outbox.database.round_trips import Statement
from outbox.envelope import rfc3339_of
from restapi.cursors import from_base64url, to_base64url

__all__ = [
    "Cursor",
    "FirstPage",
    "ListedOrder",
    "OrderFilter",
    "OrderPage",
    "event_ids_of",
    "events_of_customer",
    "first_pages_of",
    "first_pages_statement",
    "order_in_words",
    "orders_in_words",
    "orders_page",
    "page_of",
    "page_statement",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ListedOrder(NamedTuple):
    """An entry of a list: the order's id, when it was created (microseconds since 1970), and the
    JSON object that the contract shows."""

    id: str
    created: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    """What a list is narrowed to; None: not by this. `created_from` is included, `created_to` not."""

    status: str | None = None
    customer_id: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last order of a page; the next page begins behind it (keyset pagination)."""

    created_at: datetime
    order_id: UUID

    def to_text(self) -> str:
        """For a URL: microseconds since 1970 and the id, 24 bytes in base64url."""
        micros = (self.created_at - _EPOCH) // timedelta(microseconds=1)
        data = micros.to_bytes(8, "big", signed=True) + self.order_id.bytes
        return to_base64url(data)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of to_text. Raises ValueError for anything else."""
        data = from_base64url(text)
        if len(data) != 24:
            raise ValueError("not 24 bytes")
        micros = int.from_bytes(data[:8], "big", signed=True)
        try:
            created_at = _EPOCH + timedelta(microseconds=micros)
        except OverflowError as error:
            raise ValueError("not a time") from error
        return cls(created_at, UUID(bytes=data[8:]))


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Orders, newest first; `next` is None on the last page."""

    orders: Sequence[ListedOrder]
    next: Cursor | None


def orders_page(
    *, narrowed: OrderFilter = OrderFilter(), limit: int, after: Cursor | None = None
) -> OrderPage:
    """One page, newest first, behind `after`. What it costs does not depend on how deep it lies.

    Of orders that exist when the first page is read none is repeated or skipped, whatever is
    written meanwhile: an order's place (created_at, id) never changes.
    """
    return page_of(
        rows_of(*page_statement(narrowed=narrowed, limit=limit, after=after)), limit=limit
    )


def page_statement(
    *, narrowed: OrderFilter = OrderFilter(), limit: int, after: Cursor | None = None
) -> tuple[str, Sequence[Any]]:
    """What reads the page: SQL and parameters, for whatever connection."""
    conditions = {
        "status = %s": narrowed.status,
        "customer_id = %s": narrowed.customer_id,
        "created_at >= %s": narrowed.created_from,
        "created_at < %s": narrowed.created_to,
    }
    given = {sql: value for sql, value in conditions.items() if value is not None}
    parameters: list[Any] = list(given.values())
    where = list(given)
    if after is not None:
        # A range for the index, less the few of the same moment that were on the page before.
        where += ["created_at <= %s", "NOT (created_at = %s AND id >= %s)"]
        parameters += [after.created_at, after.created_at, after.order_id]
    sql = (
        f"SELECT id::text, {_CREATED}, ({_SUMMARY})::text"
        f" FROM orders WHERE {' AND '.join(where) or 'true'}"
        " ORDER BY created_at DESC, id DESC LIMIT %s"
    )
    return sql, [*parameters, limit + 1]


def page_of(rows: Sequence[tuple[Any, ...]], *, limit: int) -> OrderPage:
    """What its rows say."""
    orders = list(map(ListedOrder._make, rows))
    if len(orders) <= limit:
        return OrderPage(orders, None)
    last = orders[limit - 1]
    created_at = _EPOCH + timedelta(microseconds=last.created)
    return OrderPage(orders[:limit], Cursor(created_at, UUID(last.id)))


# Orders are put into the contract's words by PostgreSQL, where it costs a few microseconds of
# another core; reading the columns and writing them here was a fifth of a request's time.
_CREATED = "(extract(epoch FROM created_at) * 1000000)::bigint"
_FIELDS = f"""
    orders.id AS "orderId", customer_id AS "customerId", status,
    trim_scale(total) AS "totalPrice", {rfc3339_of("created_at")} AS "createdAt"
"""
_SUMMARY = f"SELECT row_to_json(shown) FROM (SELECT {_FIELDS}) AS shown"


class FirstPage(NamedTuple):
    """What the newest orders are asked for by: how many, and of which status (None: any)."""

    limit: int
    status: str | None = None


def first_pages_statement(pages: Sequence[FirstPage]) -> Statement:
    """What reads all these pages at once, as (place in `pages`, and a row of `page_statement`).

    Each of the two halves goes along one index from its end, as far as the page is long, and the
    text is the same whatever is asked.
    """
    of_any = [(place, page) for place, page in enumerate(pages) if page.status is None]
    of_status = [(place, page) for place, page in enumerate(pages) if page.status is not None]
    return _FIRST_PAGES, (
        array_literal([place for place, _ in of_any]),
        array_literal([page.limit + 1 for _, page in of_any]),
        array_literal([place for place, _ in of_status]),
        array_literal([page.limit + 1 for _, page in of_status]),
        text_array_literal([str(page.status) for _, page in of_status]),
    )


def first_pages_of(rows: Sequence[tuple[Any, ...]], pages: Sequence[FirstPage]) -> list[OrderPage]:
    """What its rows say, a page for each."""
    found: list[list[tuple[Any, ...]]] = [[] for _ in pages]
    for place, *row in rows:
        found[place].append(tuple(row))
    return [page_of(each, limit=page.limit) for each, page in zip(found, pages, strict=True)]


# A plan that is kept knows no status: it would take all to be equally many and go along all orders
# to find the few of a rare one. In this order only the index that begins with the status has them.
_NEWEST = f"SELECT id, {_CREATED} AS created, ({_SUMMARY})::text AS words FROM orders"
_FIRST_PAGES = f"""
    SELECT place, id::text, created, words FROM (
        SELECT place, newest.* FROM unnest(%s::int[], %s::int[]) AS asked (place, most)
        CROSS JOIN LATERAL (
            {_NEWEST} ORDER BY created_at DESC, id DESC LIMIT most
        ) AS newest
        UNION ALL
        SELECT place, newest.*
        FROM unnest(%s::int[], %s::int[], %s::text[]) AS asked (place, most, wanted)
        CROSS JOIN LATERAL (
            {_NEWEST} WHERE status BETWEEN wanted AND wanted
            ORDER BY status DESC, created_at DESC, id DESC LIMIT most
        ) AS newest
    ) AS shown
    ORDER BY place, created DESC, id DESC
"""
_DETAIL = f"""
    SELECT row_to_json(shown) FROM (
        SELECT {_FIELDS},
            ARRAY(
                SELECT row_to_json(line) FROM (
                    SELECT product_id AS "productId", quantity, trim_scale(price) AS price
                    FROM order_lines WHERE order_id = orders.id ORDER BY id
                ) AS line
            ) AS items,
            ARRAY(
                SELECT row_to_json(change) FROM (
                    SELECT from_status AS "from", to_status AS "to", reason, actor,
                           {rfc3339_of("at")} AS at
                    FROM order_changes WHERE order_id = orders.id ORDER BY id
                ) AS change
            ) AS history,
            ARRAY(
                SELECT event_id
                FROM order_changes
                CROSS JOIN unnest(event_ids) WITH ORDINALITY AS event (event_id, place)
                WHERE order_id = orders.id ORDER BY id, place
            ) AS "eventIds"
    ) AS shown
"""


def orders_in_words(order_ids: Collection[str]) -> Statement:
    """What reads those of these orders that there are, as (id, JSON object of the contract): SQL
    and parameters, for whatever connection.

    One statement and one snapshot: status and history of an order always agree.
    """
    sql = f"SELECT id::text, ({_DETAIL})::text FROM orders WHERE id = ANY(%s::uuid[])"
    return sql, (array_literal(order_ids),)


def order_in_words(order_id: UUID) -> str | None:
    row = row_of(*orders_in_words([str(order_id)]))
    return str(row[1]) if row else None


def event_ids_of(order_id: UUID) -> list[UUID] | None:
    """All events of an order, as they were published; None if there is no order with a history."""
    changes = OrderChange.objects.filter(order_id=order_id).order_by("id")
    lists = list(changes.values_list("event_ids", flat=True))
    return [event_id for ids in lists for event_id in ids] if lists else None


def events_of_customer(customer_id: str, *, orders: int) -> tuple[list[UUID], bool]:
    """The events of this many orders of a customer, the newest, and whether there are older orders; by
    indexes orders_of_customer and that of the changes' order."""
    of_customer = Order.objects.filter(customer_id=customer_id).order_by("-created_at", "-id")
    order_ids = list(of_customer.values_list("id", flat=True)[: orders + 1])
    changes = OrderChange.objects.filter(order_id__in=order_ids[:orders]).order_by("id")
    events = [event_id for ids in changes.values_list("event_ids", flat=True) for event_id in ids]
    return events, len(order_ids) > orders
