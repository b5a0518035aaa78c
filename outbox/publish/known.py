"""Which events are ours: those that the outbox holds, or has held until all handlers applied them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from outbox.database.arrays import array_literal
from outbox.database.ask import rows_of

__all__ = ["known_event_ids", "seconds_since_published"]


def known_event_ids(topic: str, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids event_outbox holds for this topic: one statement, by the unique index on the
    event's id. An event that a handler has not applied yet and that is not held was written by another
    producer: retention deletes a row only when every handler has applied it."""
    if not ids:
        return set()
    # A subquery for each id and no join: PostgreSQL would rather read all of a small outbox. What
    # comes back is what is missing, for that is nearly always nothing.
    rows = rows_of(
        """
        SELECT event_id FROM (
            SELECT event_id, (SELECT true FROM event_outbox event
                              WHERE event.event_id = asked.event_id
                                AND event.topic = %s) AS held
            FROM unnest(%s::uuid[]) AS asked (event_id)
        ) answered WHERE held IS NULL
        """,
        (topic, array_literal(event_id.hex for event_id in ids)),
    )
    return set(ids).difference(row[0] for row in rows)


def seconds_since_published(ids: Sequence[UUID]) -> dict[UUID, float]:
    """How long ago those of these ids that event_outbox holds were published, by the database's
    clock; 0 while the drain has not yet written it down."""
    rows = rows_of(
        """
        SELECT event_id,
               coalesce(extract(epoch FROM clock_timestamp() - published_at), 0)::float
        FROM event_outbox WHERE event_id = ANY(%s::uuid[])
        """,
        (array_literal(event_id.hex for event_id in ids),),
    )
    return dict(rows)
