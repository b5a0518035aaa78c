"""Reading orders."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import msgspec
from django.db import connection

from orders.models import Order, OrderChange, OrderLine
from outbox.arrays import array_literal

__all__ = [
    "Cursor",
    "OrderDetail",
    "OrderFilter",
    "Page",
    "StoredLine",
    "StoredOrder",
    "detail_of",
    "details_of",
    "details_statement",
    "order_detail",
    "order_details",
    "order_of",
    "orders_page",
    "page_of",
    "page_statement",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StoredOrder(msgspec.Struct, frozen=True, array_like=True):
    """A row of `orders` as it was read; for readers that would only pay for a model's life."""

    id: str
    customer_id: str
    total: Decimal
    status: str
    created_at: datetime


class StoredLine(msgspec.Struct, frozen=True, array_like=True):
    """A row of `order_lines`."""

    product_id: str
    quantity: int
    price: Decimal


class StoredChange(msgspec.Struct, frozen=True, array_like=True):
    """A row of `order_changes`."""

    from_status: str | None
    to_status: str
    reason: str
    actor: str
    at: datetime
    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderDetail:
    """One order with its lines and history, both in the order they were written."""

    order: Order | StoredOrder
    lines: Sequence[OrderLine | StoredLine]
    changes: Sequence[OrderChange | StoredChange]


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
        return base64.urlsafe_b64encode(data).decode()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of to_text. Raises ValueError for anything else."""
        try:
            data = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError("not base64url") from error
        # b64decode also takes + and /, and padding where none is needed.
        if len(data) != 24 or base64.urlsafe_b64encode(data).decode() != text:
            raise ValueError("not 24 bytes in base64url")
        micros = int.from_bytes(data[:8], "big", signed=True)
        try:
            created_at = _EPOCH + timedelta(microseconds=micros)
        except OverflowError as error:
            raise ValueError("not a time") from error
        return cls(created_at, UUID(bytes=data[8:]))


@dataclass(frozen=True, slots=True)
class Page:
    """Orders, newest first; `next` is None on the last page."""

    orders: Sequence[StoredOrder]
    next: Cursor | None


def orders_page(
    *, narrowed: OrderFilter = OrderFilter(), limit: int, after: Cursor | None = None
) -> Page:
    """One page, newest first, behind `after`. What it costs does not depend on how deep it lies.

    Of orders that exist when the first page is read none is repeated or skipped, whatever is
    written meanwhile: an order's place (created_at, id) never changes.
    """
    with connection.cursor() as cursor:
        cursor.execute(*page_statement(narrowed=narrowed, limit=limit, after=after))
        return page_of(cursor.fetchall(), limit=limit)


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
        f"SELECT {_ORDER}::text FROM orders WHERE {' AND '.join(where) or 'true'}"
        " ORDER BY created_at DESC, id DESC LIMIT %s"
    )
    return sql, [*parameters, limit + 1]


def page_of(rows: Sequence[tuple[Any, ...]], *, limit: int) -> Page:
    """What its rows say."""
    orders = list(map(order_of, rows))
    if len(orders) <= limit:
        return Page(orders, None)
    last = orders[limit - 1]
    return Page(orders[:limit], Cursor(last.created_at, UUID(last.id)))


def order_of(row: tuple[Any, ...]) -> StoredOrder:
    """What one of them says."""
    return _order_decoder.decode(row[0])


# PostgreSQL hands an order over as one JSON text, which is read faster than its columns would be.
_ORDER = "json_build_array(id, customer_id, total, status, created_at)"
_order_decoder = msgspec.json.Decoder(StoredOrder)

# The orders that there are of these ids, each as one JSON text.
DETAILS = f"""
    SELECT json_build_array(
        {_ORDER},
        ARRAY(SELECT json_build_array(product_id, quantity, price)
              FROM order_lines WHERE order_id = orders.id ORDER BY id),
        ARRAY(SELECT json_build_array(from_status, to_status, reason, actor, at, event_ids)
              FROM order_changes WHERE order_id = orders.id ORDER BY id))::text
    FROM orders WHERE id = ANY(%s::uuid[])
"""


def order_detail(order_id: UUID) -> OrderDetail | None:
    """One order, or None."""
    return order_details([str(order_id)]).get(str(order_id))


def order_details(order_ids: Collection[str]) -> dict[str, OrderDetail]:
    """Those of these orders that there are, by id; ids as we write them.

    One statement and one snapshot: status and history of an order always agree.
    """
    with connection.cursor() as cursor:
        cursor.execute(*details_statement(order_ids))
        return details_of(cursor.fetchall())


def details_statement(order_ids: Collection[str]) -> tuple[str, Sequence[Any]]:
    """What reads these orders: SQL and parameters, for whatever connection."""
    return DETAILS, (array_literal(order_ids),)


def details_of(rows: Sequence[tuple[Any, ...]]) -> dict[str, OrderDetail]:
    """What its rows say, by id."""
    documents = [_document_decoder.decode(text) for (text,) in rows]
    return {order.id: OrderDetail(order, lines, changes) for order, lines, changes in documents}


_document_decoder = msgspec.json.Decoder(
    tuple[StoredOrder, tuple[StoredLine, ...], tuple[StoredChange, ...]]
)


def detail_of(order: Order) -> OrderDetail:
    """An order that was read already, with the rest."""
    return OrderDetail(
        order=order,
        lines=list(order.lines.order_by("id")),
        changes=list(order.changes.order_by("id")),
    )
