"""What the database and the log say about the events of a run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from loadtest.verify import database_now
from outbox import conf
from outbox.kafka.log_reader import read_topic
from outbox.queries import published_ends

__all__ = [
    "Counts",
    "KafkaCount",
    "Latency",
    "commit_to_effect",
    "commit_to_kafka",
    "count_in_kafka",
    "count_missing",
    "count_of_topic",
    "counts",
    "database_now",
    "held_lanes_backlog",
    "percentiles",
    "settle",
]


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows at one moment. `heard`: the committed events that a handler here subscribes to, each as
    often as there are such handlers; those that only others read have none. Effects of events that the outbox does not hold, because
    another producer wrote them, are left out."""

    orders: int
    events: int
    published: int
    heard: int
    applied: int
    processed_events: int

    @property
    def settled(self) -> bool:
        """Every committed event is in Kafka, and applied by each of its handlers."""
        return self.events == self.published and self.heard == self.applied


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms"


@dataclass(frozen=True, slots=True)
class KafkaCount:
    """Messages in all topics of the map, and how many of them repeat an earlier event id."""

    messages: int
    distinct: int

    @property
    def duplicates(self) -> int:
        """Messages beyond the first of their event."""
        return self.messages - self.distinct


def counts() -> Counts:
    """One statement, one snapshot."""
    heard = [
        (route.topic.name, type_) for route in conf.routes() for type_ in sorted(route.event_types)
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT (SELECT count(*) FROM orders), outbox.*,
                   (SELECT count(*) FROM event_outbox
                    JOIN unnest(%s::text[], %s::text[]) AS heard (topic, type) USING (topic, type)),
                   (SELECT count(*) FROM inbox_receipt JOIN event_outbox USING (event_id)
                    WHERE outcome = 0),
                   (SELECT count(*) FROM processed_events JOIN event_outbox USING (event_id))
            FROM (SELECT count(*), count(*) FILTER (WHERE status = 1) FROM event_outbox) outbox
            """,
            ([topic for topic, _ in heard], [type_ for _, type_ in heard]),
        )
        return Counts(*cursor.fetchone())


def settle(timeout: float) -> Counts:
    """Wait until every effect is there, at most `timeout` seconds; what there is then."""
    give_up = time.monotonic() + timeout
    while not (found := counts()).settled and time.monotonic() < give_up:
        time.sleep(0.2)
    return found


def commit_to_kafka(since: datetime, until: datetime) -> Latency:
    """From an outbox row to the settling of its acknowledgement."""
    return _latency(
        """
        SELECT extract(epoch FROM published_at - created_at) * 1000 FROM event_outbox
        WHERE created_at BETWEEN %s AND %s AND published_at IS NOT NULL
        """,
        (since, until),
    )


def commit_to_effect(handler: str, since: datetime, until: datetime) -> Latency:
    """From an outbox row to the handler's receipt, which commits with the effect."""
    return _latency(
        """
        SELECT extract(epoch FROM receipt.applied_at - event.created_at) * 1000
        FROM event_outbox event JOIN inbox_receipt receipt USING (event_id)
        WHERE event.created_at BETWEEN %s AND %s AND receipt.handler = %s
        """,
        (since, until, handler),
    )


def _latency(rows: str, parameters: Sequence[datetime | str]) -> Latency:
    with connection.cursor() as cursor:
        cursor.execute(rows, parameters)
        return percentiles([float(row[0]) for row in cursor.fetchall()])


def percentiles(values: Sequence[float]) -> Latency:
    """Nearest rank; nan where there is nothing to rank."""
    ranked = sorted(values) or [float("nan")]

    def at(share: float) -> float:
        return ranked[min(len(ranked) - 1, int(len(ranked) * share))]

    return Latency(p50=at(0.50), p99=at(0.99))


def count_missing(order_ids: Sequence[str]) -> int:
    """How many of these orders are not stored."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM unnest(%s::uuid[]) AS accepted (id)
            WHERE NOT EXISTS (SELECT FROM orders WHERE orders.id = accepted.id)
            """,
            (list(order_ids),),
        )
        return int(cursor.fetchone()[0])


def count_of_topic(topic: str) -> int:
    """Committed events of one topic."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM event_outbox WHERE topic = %s", (topic,))
        return int(cursor.fetchone()[0])


def held_lanes_backlog() -> int | None:
    """Pending events of the lanes that a drain holds at this moment; None if none is held."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT lane FROM outbox_lane FOR SHARE SKIP LOCKED")
        free = [row[0] for row in cursor.fetchall()]
        cursor.execute(
            """
            SELECT (SELECT count(*) FROM outbox_lane WHERE lane <> ALL (%s::smallint[])),
                   (SELECT count(*) FROM event_outbox WHERE status = 0 AND lane <> ALL (%s::smallint[]))
            """,
            (free, free),
        )
        held, pending = cursor.fetchone()
    return int(pending) if held else None


def count_in_kafka() -> KafkaCount:
    """Read every topic of the map from end to end."""
    seen: Counter[str] = Counter()
    for topic in conf.topics():
        messages = read_topic(topic.name, ends=published_ends(topic.name))
        seen.update(message.event_id for message in messages)
    return KafkaCount(messages=seen.total(), distinct=len(seen))
