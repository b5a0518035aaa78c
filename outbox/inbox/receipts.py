"""Receipts: one row for each event that a handler has applied, parked or discarded (guarantees.md#r9)."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from outbox.database.arrays import array_literal
from outbox.database.ask import rows_of
from outbox.models import InboxReceipt

__all__ = ["insert_receipts", "settle_receipts"]


def insert_receipts(
    handler: str, event_ids: Iterable[UUID], outcome: int = InboxReceipt.Outcome.APPLIED
) -> set[UUID]:
    """Write a receipt for each event that has none; returns the ids that were new.

    Sorted, so that two transactions meet in the same order and cannot deadlock. The query
    returns the ids that already had a receipt, because that set is almost always empty."""
    new = set(event_ids)
    rows = rows_of(
        """
        WITH given AS (
            SELECT unnest(%s::uuid[]) AS event_id
        ), written AS (
            INSERT INTO inbox_receipt (event_id, handler, outcome)
            SELECT event_id, %s, %s::smallint FROM given ORDER BY event_id
            ON CONFLICT (event_id, handler) DO NOTHING
            RETURNING event_id
        )
        SELECT event_id FROM given WHERE event_id NOT IN (SELECT event_id FROM written)
        """,
        (array_literal(event_id.hex for event_id in new), handler, outcome),
    )
    there = {event_id for (event_id,) in rows}
    # Ids of another type do not compare equal, so each of them would count as new.
    if not there <= new:
        raise TypeError(
            f"PostgreSQL returned receipts that were not requested: {there - new}. Pass ids as UUIDs."
        )
    return new - there


def settle_receipts(handler: str, event_ids: Iterable[UUID], outcome: int) -> set[UUID]:
    """Turn parked receipts into applied or discarded ones; returns the ids for which that was
    done here. Others have been applied or discarded by somebody else: no effect may follow.

    A receipt that is missing altogether is written: nobody has applied its event.
    """
    rows = rows_of(
        """
        INSERT INTO inbox_receipt AS receipt (event_id, handler, outcome)
        SELECT event_id, %s, %s::smallint FROM unnest(%s::uuid[]) AS event (event_id)
        ORDER BY event_id
        ON CONFLICT (event_id, handler)
        DO UPDATE SET outcome = excluded.outcome, applied_at = clock_timestamp()
        WHERE receipt.outcome = %s
        RETURNING event_id
        """,
        (handler, outcome, list(event_ids), InboxReceipt.Outcome.PARKED),
    )
    return {row[0] for row in rows}
