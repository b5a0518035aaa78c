"""What database and logs say after an upgrade. Meaningful once everything has settled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """Counts of rows.

    missing        promised orders that are not stored
    unasked        orders stored that no answer named: a repetition became another order
    created_wrong  promised orders with another number of ORDER_CREATED events than one
    paid_wrong     the same of promised payments and PAYMENT_COMPLETED
    lost_words     promised posts, follows and notifications that are not stored
    undelivered    notifications without an end
    open_letters   dead letters that are not resolved
    """

    missing: int
    unasked: int
    created_wrong: int
    paid_wrong: int
    lost_words: int
    undelivered: int
    open_letters: int


@dataclass(frozen=True, slots=True)
class Left:
    """Events that are stored; of these in Kafka; of these with an effect."""

    stored: int
    published: int
    applied: int


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
            lost_words=follows
            + absent("posts", "id", "bigint", promises.posts)
            + absent("notifications", "id", "uuid", promises.notifications),
            undelivered=count("SELECT count(*) FROM notifications WHERE status <> 'delivered'"),
            open_letters=count("SELECT count(*) FROM dead_letter WHERE state < 3"),
        )


def left_for_todays_code(database_url: str, topics: Sequence[str]) -> Left:
    """What has become of the events of these topics so far."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            """
            SELECT count(*), count(*) FILTER (WHERE status = 1), count(receipt.event_id)
            FROM event_outbox event LEFT JOIN inbox_receipt receipt USING (event_id)
            WHERE topic = ANY (%s)
            """,
            (list(topics),),
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
