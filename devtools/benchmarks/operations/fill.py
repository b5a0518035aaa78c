"""Rows as a bad week leaves them, written by SQL: pending events, dead letters, orders, positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["FULL", "Amounts", "event_id", "fill", "order_id"]

PART = 500_000  # rows of a statement


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many rows there are to be."""

    events: int
    letters: int
    orders: int
    positions: int

    def share(self, of_it: float) -> Amounts:
        """A part of each, at least one."""
        return Amounts(
            *(
                max(1, round(n * of_it))
                for n in (self.events, self.letters, self.orders, self.positions)
            )
        )


FULL = Amounts(events=1_000_000, letters=100_000, orders=10_000_000, positions=10_000)

# The first orders are those whose event is pending, and of these the first have a dead letter.
ORDER_ID = "('01980000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid"
EVENT_ID = "('01980000-0000-7001-8000-' || lpad(to_hex(i), 12, '0'))::uuid"
ORDERS = f"""
    INSERT INTO orders (id, customer_id, total, status, created_at)
    SELECT {ORDER_ID}, 'customer-' || i %% 100000, 42, 'CREATED', now() - i * interval '1 s'
    FROM generate_series(%s::int, %s::int) i
"""
CHANGES = f"""
    INSERT INTO order_changes (order_id, to_status, actor, at, event_ids)
    SELECT {ORDER_ID}, 'CREATED', 'shop', now() - i * interval '1 s', ARRAY[{EVENT_ID}]
    FROM generate_series(%s::int, %s::int) i
"""
EVENTS = f"""
    INSERT INTO event_outbox (event_id, lane, topic, key, type, source, payload, traceparent,
        correlation_id, status)
    SELECT {EVENT_ID}, i %% 64, 'order-events', {ORDER_ID}::text, 'ORDER_CREATED', '/orders',
        '{{"eventType": "ORDER_CREATED"}}', '', 'correlation-' || i, 0
    FROM generate_series(%s::int, %s::int) i
"""
LETTERS = f"""
    INSERT INTO dead_letter (handler, event_id, topic, key, type, source, event_time, payload,
        traceparent, correlation_id, state, error)
    SELECT 'record_sales', {EVENT_ID}, 'order-events', {ORDER_ID}::text, 'ORDER_CREATED',
        '/orders', '', '{{}}', '', 'correlation-' || i, 2, 'ValueError: number ' || i %% 7
    FROM generate_series(%s::int, %s::int) i
"""
# Of idle partitions; those that the handler reads already stay as they are.
POSITIONS = """
    INSERT INTO bridge_position (handler, topic, "partition", topic_id, next_offset)
    SELECT 'record_sales', 'order-events', i - 1, gen_random_uuid(), 0
    FROM generate_series(%s::int, %s::int) i ON CONFLICT DO NOTHING
"""


class FillCursor(Protocol):
    """Of Django or of psycopg."""

    def execute(self, query: Any, params: Any = None, /) -> Any: ...


def order_id(number: int) -> str:
    """Of the order with this number, from 1."""
    return f"01980000-0000-7000-8000-{number:012x}"


def event_id(number: int) -> str:
    """Of the pending event with this number, from 1."""
    return f"01980000-0000-7001-8000-{number:012x}"


def fill(cursor: FillCursor, amounts: Amounts) -> Iterator[str]:
    """Write them, a part at a time, and have the planner told; says what is done."""
    # Every change has its order: nothing looks that up ten million times.
    cursor.execute("SET session_replication_role = replica")
    for name, statement, count in (
        ("orders", ORDERS, amounts.orders),
        ("changes of orders", CHANGES, amounts.orders),
        ("pending events", EVENTS, amounts.events),
        ("dead letters", LETTERS, amounts.letters),
        ("positions", POSITIONS, amounts.positions),
    ):
        for first in range(1, count + 1, PART):
            cursor.execute(statement, (first, min(count, first + PART - 1)))
        yield f"{count:,} {name}"
    cursor.execute("RESET session_replication_role")
    cursor.execute("ANALYZE")
