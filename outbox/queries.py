"""Reading: backlog, oldest age, and the timeline of one event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Max

from outbox.models import DeadLetter, InboxReceipt, OutboxEvent

__all__ = [
    "Backlog",
    "LetterCount",
    "Receipt",
    "Timeline",
    "backlog",
    "has_pending",
    "held_events",
    "open_letters",
    "published_ends",
    "timeline",
]

BACKLOG_COUNT_LIMIT = 100_000
LETTERS_COUNT_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """Pending events (counted up to 100,000) and the age of the oldest, in seconds."""

    events: int
    oldest_seconds: float


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


def has_pending() -> bool:
    """Whether any committed event waits for Kafka."""
    return OutboxEvent.objects.filter(status=OutboxEvent.Status.NEW).exists()


def backlog() -> Backlog:
    """Bounded whatever the table holds: reads the pending index only, and at most its limit."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)
            FROM (SELECT created_at FROM event_outbox WHERE status = 0 ORDER BY lane, id LIMIT %s) pending
            """,
            (BACKLOG_COUNT_LIMIT,),
        )
        count, oldest = cursor.fetchone()
    return Backlog(events=count, oldest_seconds=float(oldest))


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
