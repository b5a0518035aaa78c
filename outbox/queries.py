"""Reading: who writes, what is published, and what the handlers say of one event."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Max, QuerySet

from outbox.database.ask import rows_of
from outbox.models import InboxReceipt, OutboxEvent

__all__ = ["open_writers", "published_ends", "receipts_of"]


def open_writers() -> frozenset[str]:
    """Transactions of others that may have drawn an id of the outbox and not committed its row.

    An INSERT locks the table before it draws, and holds the lock until its transaction ends.
    """
    rows = rows_of(
        """
        SELECT virtualtransaction FROM pg_locks
        WHERE locktype = 'relation' AND relation = 'event_outbox'::regclass
          AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """
    )
    return frozenset(row[0] for row in rows)


def published_ends(topic: str) -> dict[int, int]:
    """Partition -> offset behind the last message that the outbox knows to be in Kafka. Reads all
    rows of the topic: for audits and tests, not for the way of an event."""
    rows = OutboxEvent.objects.filter(topic=topic, status=OutboxEvent.Status.PUBLISHED)
    ends = rows.values_list("partition").annotate(last=Max("offset"))
    return {partition: last + 1 for partition, last in ends}


def receipts_of(event_id: UUID) -> QuerySet[InboxReceipt]:
    """What the handlers say of an event, by time."""
    return InboxReceipt.objects.filter(event_id=event_id).order_by("applied_at")
