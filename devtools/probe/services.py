"""Drawing numbers and logging their arrival."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import uuid_utils
from django.db import connection

from devtools.probe.events import SequenceDrawn, decode_sequence_drawn
from devtools.probe.models import ProbeEntry
from outbox.database.unit_of_work import unit_of_work
from outbox.envelope import EventEnvelope
from outbox.publish.events import publish

__all__ = ["append_entries", "append_to", "draw", "reset_entries"]


def draw(keys: Sequence[str]) -> list[SequenceDrawn]:
    """Draw the next number of each key (each key once) and publish it, in one transaction.

    Raises NotStored or OutcomeUnknown.
    """
    with unit_of_work(), connection.cursor() as cursor:
        # ON CONFLICT locks each row before its number is drawn; sorted, so that no two callers
        # wait for each other in a circle.
        cursor.execute(
            """
            INSERT INTO probe_sequence (key, seq)
            SELECT key, 1 FROM unnest(%s::text[]) AS wanted (key) ORDER BY key
            ON CONFLICT (key) DO UPDATE SET seq = probe_sequence.seq + 1
            RETURNING key, seq
            """,
            (sorted(keys),),
        )
        events = [
            SequenceDrawn(event_id=str(UUID(int=uuid_utils.uuid7().int)), key=key, seq=seq)
            for key, seq in cursor.fetchall()
        ]
        publish(events)
    return events


def append_entries(envelopes: Sequence[EventEnvelope]) -> None:
    """Append to the probe's log in the order given, in the open transaction."""
    append_to("probe_log", envelopes)


def append_to(table: str, envelopes: Sequence[EventEnvelope]) -> None:
    """Append to a table like the probe's log, in the order given, in the open transaction."""
    events = [decode_sequence_drawn(envelope.payload) for envelope in envelopes]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {table} (key, seq, event_id)
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


def reset_entries() -> None:
    """Forget the log, in the open transaction, before a replay."""
    ProbeEntry.objects.all().delete()
