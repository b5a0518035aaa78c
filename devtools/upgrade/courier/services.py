"""Delivering orders, and the log of what became of each."""

from __future__ import annotations

from collections.abc import Sequence

import uuid_utils
from django.db import connection

from devtools.upgrade.courier.events import OrderDelivered
from outbox.database.round_trips import Change, RoundTrip
from outbox.envelope import EventEnvelope
from outbox.publish.events import publishing

__all__ = ["delivering", "follow_orders"]


def delivering(order_ids: Sequence[str]) -> Change[str]:
    """The ids of its events, and the statement that stores them."""
    ids = [str(uuid_utils.uuid7()) for _ in order_ids]
    events = publishing(
        [
            OrderDelivered(event_id=id_, order_id=order_id)
            for id_, order_id in zip(ids, order_ids, strict=True)
        ]
    )
    return Change(ids, RoundTrip(events.statements, events.on_commit))


def follow_orders(envelopes: Sequence[EventEnvelope]) -> None:
    """Append to the log in the order given, in the open transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO courier_log (order_id, type, event_id)
            SELECT order_id, type, event_id
            FROM unnest(%s::text[], %s::text[], %s::uuid[]) WITH ORDINALITY
                 AS arrived (order_id, type, event_id, position)
            ORDER BY position
            """,
            (
                [envelope.key for envelope in envelopes],
                [envelope.type for envelope in envelopes],
                [envelope.event_id for envelope in envelopes],
            ),
        )
