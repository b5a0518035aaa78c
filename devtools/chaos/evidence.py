"""What the servers know of one scenario, read for the checker. A fresh connection a question, so
that no answer depends on what happened to an older one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from devtools.chaos.history import Applied, Logged, Stored, TableHealth
from devtools.chaos.order_life import Answered, LifeStep, OrderLives
from orders.events import ORDER_EVENTS_TOPIC, ORDERS_CREATED_TOPIC, STOCK_TOPIC
from outbox import conf
from outbox.kafka.log_reader import read_topic

__all__ = ["Evidence", "EvidenceMark", "PendingWork"]

HOT_TABLES = (
    *("event_outbox", "outbox_lane", "bridge_position", "inbox_receipt"),
    *("sales_additions", "sales_metrics"),
    *("feed_slices", "feed_authors"),
)
ORDER_TOPICS = (ORDER_EVENTS_TOPIC.name, ORDERS_CREATED_TOPIC.name, STOCK_TOPIC.name)


def _heard() -> list[str]:
    """Topic and type of the events that some handler listens to; others only go to Kafka."""
    return [f"{route.topic.name} {name}" for route in conf.routes() for name in route.event_types]


@dataclass(frozen=True, slots=True)
class EvidenceMark:
    """Where a scenario begins in tables that only grow."""

    outbox_id: int
    entry_id: int
    lane_updates: int


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Events of a scenario that are under way, those not yet in Kafka, and the age of the oldest."""

    open: int
    pending: int
    oldest_seconds: float


class Evidence:
    """Reads one stack's database and Kafka."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of one statement, committed. Raises psycopg.OperationalError."""
        with psycopg.connect(self._url, autocommit=True, connect_timeout=3) as connection:
            cursor = connection.execute(sql.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def mark(self) -> EvidenceMark:
        """Now."""
        [(outbox_id, entry_id)] = self.rows(
            "SELECT (SELECT coalesce(max(id), 0) FROM event_outbox),"
            " (SELECT coalesce(max(id), 0) FROM probe_log)"
        )
        return EvidenceMark(outbox_id, entry_id, self.tables()["outbox_lane"].updated)

    def backlog(self, since: EvidenceMark) -> PendingWork:
        """What of the scenario is under way."""
        [(count, pending, oldest)] = self.rows(
            """
            SELECT count(*), count(*) FILTER (WHERE status = 0),
                   coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)
            FROM event_outbox event
            WHERE id > %s AND status < 2 AND topic NOT LIKE '%%.dlq'
              AND (status = 0 OR topic || ' ' || type = ANY(%s) AND NOT EXISTS (
                SELECT FROM inbox_receipt receipt WHERE receipt.event_id = event.event_id))
            """,
            (since.outbox_id, _heard()),
        )
        return PendingWork(int(count), int(pending), float(oldest))

    def unfinished(self, since: EvidenceMark) -> int:
        """Events of the scenario that are not in Kafka yet or whose effect is still to come, in
        whatever way they wait: also as a dead letter or behind one."""
        [(count,)] = self.rows(
            """
            SELECT count(*) FROM event_outbox event
            WHERE id > %s AND topic NOT LIKE '%%.dlq'
              AND (status <> 1 OR topic || ' ' || type = ANY(%s) AND NOT EXISTS (
                SELECT FROM inbox_receipt receipt
                WHERE receipt.event_id = event.event_id AND receipt.outcome <> 1))
            """,
            (since.outbox_id, _heard()),
        )
        return int(count)

    def stored(self, since: EvidenceMark) -> list[Stored]:
        """The scenario's rows of the outbox."""
        return [
            Stored(
                id=row[0],
                event_id=str(row[1]),
                topic=row[2],
                key=row[3],
                created_at=float(row[4]),
                published_at=None if row[5] is None else float(row[5]),
                seq=row[6],
                heard=row[7],
                of_order=row[2] in ORDER_TOPICS,
            )
            for row in self.rows(
                """
                SELECT id, event_id, topic, key, extract(epoch FROM created_at),
                       extract(epoch FROM published_at),
                       CASE WHEN topic = 'probe-events' THEN (payload::json ->> 'seq')::bigint END,
                       topic || ' ' || type = ANY(%s)
                FROM event_outbox WHERE id > %s AND topic NOT LIKE '%%.dlq' ORDER BY id
                """,
                (_heard(), since.outbox_id),
            )
        ]

    def applied(self, since: EvidenceMark, table: str = "probe_log") -> list[Applied]:
        """The scenario's entries of a log, in order."""
        first = since.entry_id if table == "probe_log" else 0
        return [
            Applied(str(event_id), key, seq)
            for event_id, key, seq in self.rows(
                f"SELECT event_id, key, seq FROM {table} WHERE id > %s ORDER BY id", (first,)
            )
        ]

    def processed(self, since: EvidenceMark) -> list[str]:
        """The scenario's events of topic orders.created whose effect is there."""
        sql = """
            SELECT processed.event_id FROM processed_events processed
            JOIN event_outbox event USING (event_id) WHERE event.id > %s
        """
        return [str(row[0]) for row in self.rows(sql, (since.outbox_id,))]

    def receipts(self, since: EvidenceMark, *, parked: bool) -> list[str]:
        """Events of the scenario with a receipt, or those that wait as or behind a dead letter."""
        sql = """
            SELECT receipt.event_id FROM inbox_receipt receipt
            JOIN event_outbox event USING (event_id)
            WHERE event.id > %s AND (receipt.outcome = 1) = %s
        """
        found = self.rows(sql, (since.outbox_id, parked))
        if parked:
            held = "SELECT event_id FROM event_outbox WHERE id > %s AND status > 1"
            found += self.rows(held, (since.outbox_id,))
        return [str(row[0]) for row in found]

    def dead_letters(self, since: EvidenceMark) -> list[str]:
        """Events of the scenario that failed by themselves, in Kafka or in a handler: not those
        that only waited behind one."""
        if self.rows("SELECT to_regclass('dead_letter')") == [(None,)]:
            return []
        sql = """
            SELECT letter.event_id FROM dead_letter letter
            JOIN event_outbox event USING (event_id)
            WHERE event.id > %s AND letter.failed_at IS NOT NULL
        """
        return [str(row[0]) for row in self.rows(sql, (since.outbox_id,))]

    def letter_is_open(self, event_id: str) -> bool:
        """Whether the event is a dead letter that is neither applied nor discarded."""
        sql = "SELECT 1 FROM dead_letter WHERE state < 3 AND event_id = %s"
        return bool(self.rows(sql, (event_id,)))

    def order_lives(self, answered: Sequence[Answered], stored: Sequence[Stored]) -> OrderLives:
        """The history of each order that an answer or an event names."""
        ids = {answer.order_id for answer in answered}
        ids |= {row.key for row in stored if row.of_order}
        known = (list(ids),)
        steps = self.rows(
            "SELECT id, order_id, from_status, to_status, event_ids FROM order_changes"
            " WHERE order_id = ANY(%s::uuid[])",
            known,
        )
        statuses = self.rows("SELECT id, status FROM orders WHERE id = ANY(%s::uuid[])", known)
        return OrderLives(
            answered=answered,
            steps=[
                LifeStep(number, str(order_id), before, after, tuple(str(i) for i in event_ids))
                for number, order_id, before, after, event_ids in steps
            ],
            statuses={str(order_id): status for order_id, status in statuses},
        )

    def logged(self) -> list[Logged]:
        """All that Kafka holds, every topic of the map from its beginning."""
        return [
            Logged(message.event_id, message.topic, message.partition, message.offset)
            for topic in conf.topics()
            for message in read_topic(topic.name)
        ]

    def tables(self) -> dict[str, TableHealth]:
        """Row versions of the hot tables."""
        rows = self.rows(
            "SELECT relname, n_live_tup, n_dead_tup, n_tup_upd FROM pg_stat_user_tables"
            " WHERE relname = ANY(%s)",
            (list(HOT_TABLES),),
        )
        return {name: TableHealth(live, dead, updated) for name, live, dead, updated in rows}

    def lane_holders(self) -> int:
        """Transactions that have lanes locked."""
        sql = "SELECT count(DISTINCT pid) FROM outbox_lane JOIN pg_stat_activity ON backend_xid = xmax"
        return int(self.rows(sql)[0][0])

    def held_lanes(self) -> int | None:
        """Pending events of the lanes that a drain holds at this moment; None if none is held."""
        with psycopg.connect(self._url, connect_timeout=3) as connection:
            free = [
                row[0]
                for row in connection.execute("SELECT lane FROM outbox_lane FOR SHARE SKIP LOCKED")
            ]
            row = connection.execute(
                """
                SELECT (SELECT count(*) FROM outbox_lane WHERE lane <> ALL (%s::smallint[])),
                       (SELECT count(*) FROM event_outbox
                        WHERE status = 0 AND lane <> ALL (%s::smallint[]))
                """,
                (free, free),
            ).fetchone()
        assert row is not None
        return int(row[1]) if row[0] else None

    def digest(self) -> str:
        """Of all that effects and drains may change, table by table: a zombie must leave it as it
        is. Positions are not in it: they pass over the duplicates that a drain may send."""
        parts = {
            name: self.rows(sql)[0]
            for name, sql in (
                ("log", "SELECT count(*), sum(hashtext(id || key || seq)) FROM probe_log"),
                (
                    "receipts",
                    "SELECT count(*), sum(hashtext(event_id || handler || outcome))"
                    " FROM inbox_receipt",
                ),
                (
                    "figures",
                    "SELECT count(*), sum(hashtext(metric_name || dimension || value))"
                    " FROM sales_figures",
                ),
                (
                    "outbox",
                    "SELECT count(*), sum(hashtext(event_id || ':' || status)) FROM event_outbox",
                ),
            )
        }
        return ", ".join(f"{name} {count} ({hashes})" for name, (count, hashes) in parts.items())

    def settings(self) -> dict[str, str]:
        """What durability the figures were measured with."""
        names = ["server_version", "fsync", "synchronous_commit", "full_page_writes"]
        rows = self.rows("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (names,))
        return {str(name): str(setting) for name, setting in rows}
