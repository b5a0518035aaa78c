"""Reading: what is held or open, who writes, and the timeline of one event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Max

from outbox.models import DeadLetter, InboxReceipt, OutboxEvent

__all__ = [
    "LetterCount",
    "Receipt",
    "Timeline",
    "held_events",
    "open_letters",
    "open_writers",
    "published_ends",
    "timeline",
]

LETTERS_COUNT_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class LetterCount:
    """Open dead letters of one handler in one state, and the age of the oldest, in seconds."""

    handler: str
    state: str
    letters: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """One handler's word on an event."""

    handler: str
    outcome: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class Timeline:
    """One event from its commit to each handler's receipt."""

    event: OutboxEvent
    receipts: tuple[Receipt, ...]


def held_events() -> int:
    """Events behind a message that Kafka refused, counted up to 10,000 by an index of their own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT FROM event_outbox WHERE status = 2 LIMIT %s) held",
            (LETTERS_COUNT_LIMIT,),
        )
        return int(cursor.fetchone()[0])


def open_letters() -> list[LetterCount]:
    """Per handler and state; looks at 10,000 open letters of each state at most, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT handler, letter.state, count(*),
                   extract(epoch FROM clock_timestamp() - min(created_at))
            FROM unnest(ARRAY[0, 1, 2]) AS open (state)
            CROSS JOIN LATERAL (
                SELECT handler, dead_letter.state, created_at FROM dead_letter
                WHERE dead_letter.state = open.state AND dead_letter.state < 3 ORDER BY id LIMIT %s
            ) AS letter
            GROUP BY handler, letter.state
            """,
            (LETTERS_COUNT_LIMIT,),
        )
        return [
            LetterCount(handler, DeadLetter.State(state).label, count, float(oldest))
            for handler, state, count, oldest in cursor.fetchall()
        ]


def open_writers() -> frozenset[str]:
    """Transactions of others that may have drawn an id of the outbox and not committed its row.

    An INSERT locks the table before it draws, and holds the lock until its transaction ends.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT virtualtransaction FROM pg_locks
            WHERE locktype = 'relation' AND relation = 'event_outbox'::regclass
              AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """
        )
        return frozenset(row[0] for row in cursor.fetchall())


def published_ends(topic: str) -> dict[int, int]:
    """Partition -> offset behind the last message that the outbox knows to be in Kafka. Reads all
    rows of the topic: for audits and tests, not for the way of an event."""
    rows = OutboxEvent.objects.filter(topic=topic, status=OutboxEvent.Status.PUBLISHED)
    ends = rows.values_list("partition").annotate(last=Max("offset"))
    return {partition: last + 1 for partition, last in ends}


def timeline(event_id: UUID) -> Timeline | None:
    """What is known of an event; None if the outbox has never held it or has let it go."""
    event = OutboxEvent.objects.filter(event_id=event_id).first()
    if event is None:
        return None
    receipts = InboxReceipt.objects.filter(event_id=event_id).order_by("applied_at")
    return Timeline(
        event=event,
        receipts=tuple(
            Receipt(row.handler, InboxReceipt.Outcome(row.outcome).label, row.applied_at)
            for row in receipts
        ),
    )
