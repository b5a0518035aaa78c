"""The effect of the three topics: what was accepted becomes ready to be sent. No provider is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from django.db import transaction

from notifications.delivery.turns import nudge
from notifications.events import decode_pending
from notifications.models import Notification
from outbox.database.ask import row_of
from outbox.envelope import EventEnvelope

__all__ = ["UnknownNotification", "decode_known", "ready_of"]


class UnknownNotification(LookupError):
    """The event names a notification that was never accepted here, or is past its retention."""


# Ready is made once: a replay, and an event of another producer, change nothing. What is scheduled,
# cancelled or finished is passed by.
_MAKE_READY = """
    WITH asked AS (
        SELECT DISTINCT id FROM unnest(%s::uuid[]) AS asked (id)
    ), found AS MATERIALIZED (
        SELECT notifications.id, status = 'pending' AND ready_at IS NULL AS fresh
        FROM notifications JOIN asked ON asked.id = notifications.id
        ORDER BY notifications.id FOR UPDATE OF notifications
    ), made AS (
        UPDATE notifications AS ready
        SET ready_at = clock_timestamp(), due_at = clock_timestamp()
        FROM found WHERE ready.id = found.id AND found.fresh
        RETURNING ready.id
    )
    SELECT (SELECT count(*) FROM made),
           ARRAY(SELECT asked.id::text FROM asked LEFT JOIN found USING (id) WHERE found.id IS NULL)
"""


def ready_of(priority: str) -> Callable[[Sequence[EventEnvelope]], None]:
    """The effect of a priority's handler."""
    return partial(_make_ready, priority)


def _make_ready(priority: str, envelopes: Sequence[EventEnvelope]) -> None:
    """In the open transaction. Raises UnknownNotification."""
    ids = [decode_pending(envelope.payload) for envelope in envelopes]
    made, unknown = row_of(_MAKE_READY, (ids,))
    if unknown:
        raise UnknownNotification(f"No notification has the id {', '.join(unknown[:10])}.")
    if made:
        transaction.on_commit(partial(nudge, priority), robust=True)


def decode_known(payload: str) -> str:
    """The id of a notification that there is. Raises msgspec.DecodeError, UnknownNotification: an
    unknown id of another producer is parked and does not count as a failure of the handler."""
    id_ = decode_pending(payload)
    if not Notification.objects.filter(id=id_).exists():
        raise UnknownNotification(f"No notification has the id {id_}.")
    return id_
