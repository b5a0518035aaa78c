"""What database and logs say after an upgrade. Meaningful once everything has settled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from devtools.upgrade.load import Promises

__all__ = ["FoundState", "Left", "complaints", "find", "left_for_todays_code"]

# Of each order that should have one: how many events of the type there are.
EVENTS_OF_ORDERS = """
    SELECT count(*) FROM (
        SELECT wanted.id FROM unnest(%s::text[]) AS wanted (id)
        LEFT JOIN event_outbox event ON event.topic = 'order-events' AND event.key = wanted.id
             AND event.type = %s
        GROUP BY wanted.id HAVING count(event.id) <> 1
    ) wrong
"""

# What the courier should have seen: of each order these events, in the order in which they were stored.
SEEN_BY_COURIER = """
    WITH stored AS (
        SELECT event_id, key, row_number() OVER (PARTITION BY key ORDER BY id) AS turn
        FROM event_outbox WHERE topic = 'order-events'
        AND type IN ('ORDER_CREATED', 'PAYMENT_COMPLETED', 'ORDER_DELIVERED')
    ), seen AS (
        SELECT event_id, order_id AS key, row_number() OVER (PARTITION BY order_id ORDER BY id) AS turn
        FROM courier_log
    )
    SELECT count(*) FROM stored FULL JOIN seen USING (key, turn)
    WHERE stored.event_id IS DISTINCT FROM seen.event_id
"""
NEW_TYPE = "ORDER_DELIVERED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """Counts of rows.

    missing        promised orders that are not stored
    unasked        orders stored that no answer named: a repetition became another order
    created_wrong  promised orders with another number of ORDER_CREATED events than one
    paid_wrong     the same of promised payments and PAYMENT_COMPLETED
    delivered_lost  promised deliveries without their event
    courier_wrong  events that the courier's log does not have once, and in the order of its order
    lost_words     promised posts, follows and notifications that are not stored
    undelivered    notifications without an end
    open_letters   dead letters that are not resolved
    """

    missing: int
    unasked: int
    created_wrong: int
    paid_wrong: int
    delivered_lost: int
    courier_wrong: int
    lost_words: int
    undelivered: int
    open_letters: int


@dataclass(frozen=True, slots=True)
class Left:
    """Events of the type that old code does not know: how many are stored; of these in Kafka; of these
    applied by the courier; of these parked by it, in dead letters that count no try."""

    stored: int
    published: int
    applied: int
    parked: int


def find(database_url: str, promises: Promises) -> FoundState:
    """Compare the promises with what is stored."""
    orders, paid = list(promises.orders), list(promises.paid)
    with psycopg.connect(database_url) as connection:

        def count(sql: str, *values: object) -> int:
            row = connection.execute(sql, values).fetchone()
            assert row is not None
            return int(row[0])

        def absent(table: str, column: str, kind: str, ids: Iterable[str]) -> int:
            return count(
                f"SELECT count(*) FROM unnest(%s::{kind}[]) AS wanted (id)"
                f" WHERE NOT EXISTS (SELECT FROM {table} WHERE {table}.{column} = wanted.id)",
                list(ids),
            )

        follows = count(
            "SELECT count(*) FROM unnest(%s::text[], %s::text[]) AS wanted (follower, followee)"
            " WHERE NOT EXISTS (SELECT FROM follows WHERE follower_id = follower"
            " AND followee_id = followee AND active)",
            [follower for follower, _ in promises.follows],
            [followee for _, followee in promises.follows],
        )
        return FoundState(
            missing=absent("orders", "id", "uuid", orders),
            unasked=count("SELECT count(*) FROM orders WHERE id <> ALL (%s::uuid[])", orders),
            created_wrong=count(EVENTS_OF_ORDERS, orders, "ORDER_CREATED"),
            paid_wrong=count(EVENTS_OF_ORDERS, paid, "PAYMENT_COMPLETED"),
            delivered_lost=absent("event_outbox", "event_id", "uuid", promises.delivered),
            courier_wrong=count(SEEN_BY_COURIER),
            lost_words=follows
            + absent("posts", "id", "bigint", promises.posts)
            + absent("notifications", "id", "uuid", promises.notifications),
            undelivered=count("SELECT count(*) FROM notifications WHERE status <> 'delivered'"),
            open_letters=count("SELECT count(*) FROM dead_letter WHERE state < 3"),
        )


def left_for_todays_code(database_url: str) -> Left:
    """What has become of the events of the new type so far."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            """
            SELECT count(*), count(*) FILTER (WHERE status = 1),
                count(*) FILTER (WHERE outcome = 0), count(*) FILTER (WHERE outcome = 1)
            FROM event_outbox event LEFT JOIN inbox_receipt receipt
                 ON receipt.event_id = event.event_id AND handler = 'follow_orders'
            WHERE event.type = %s
            """,
            (NEW_TYPE,),
        ).fetchone()
    assert row is not None
    return Left(*row)


def complaints(logs: Iterable[Path]) -> Counter[str]:
    """`process: event` of every line of level error or critical in these logs."""
    found: Counter[str] = Counter()
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") in ("error", "critical"):
                found[f"{log.stem}: {str(entry.get('event'))[:80]}"] += 1
    return found
