"""The Celery task of the handler that is added under load."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from chaos.event_map import SECOND_HANDLER
from eventsite.probe.events import decode_sequence_drawn
from outbox.effects import effect_task
from outbox.envelope import EventEnvelope

__all__ = ["append_entries"]


def _append(envelopes: Sequence[EventEnvelope]) -> None:
    events = [decode_sequence_drawn(envelope.payload) for envelope in envelopes]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO chaos_log (key, seq, event_id)
            SELECT key, seq, event_id
            FROM unnest(%s::text[], %s::bigint[], %s::uuid[]) WITH ORDINALITY
                 AS arrived (key, seq, event_id, position)
            ORDER BY position
            """,
            (
                [event.key for event in events],
                [event.seq for event in events],
                [envelope.event_id for envelope in envelopes],
            ),
        )


append_entries = effect_task(name="chaos.append_entries", handler=SECOND_HANDLER, effect=_append)
