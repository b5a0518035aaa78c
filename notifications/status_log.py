"""A change of status is recorded: a row of the status log and an event, in the transaction of the
change and after it: the rows of the notifications are locked then, so log and topic keep their
order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import uuid_utils

from notifications.events import NotificationStatusChanged
from outbox.database.arrays import text_array_literal
from outbox.database.round_trips import RoundTrip, Statement
from outbox.envelope import TraceContext, rfc3339
from outbox.publish.events import publishing
from restapi.status_nudge import nudging

__all__ = ["CHANGED", "STATUS_FEED", "Changed", "recording"]

STATUS_FEED = "notifications"  # name of the log among those that WebSockets follow

# What an update returns, in the order of the fields of `Changed`: `changed` is the updated row, `before`
# the one that was locked.
CHANGED = """
    changed.id::text, changed.batch_id::text, changed.caller, changed.channel, before.status,
    changed.status, changed.updated_at, changed.traceparent, changed.correlation_id,
    CASE WHEN changed.status = 'delivered' THEN
        greatest(0, least(2147483647, extract(
            epoch FROM changed.sent_at - greatest(changed.created_at, changed.scheduled_at)
        ) * 1000))::int
    END
"""


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A notification whose status is another now.

    at          `updated_at` of its row
    latency_ms  of a delivery: from accepted, or from its schedule, until sent
    """

    notification_id: str
    batch_id: str | None
    caller: str
    channel: str
    previous: str
    status: str
    at: datetime
    traceparent: str = ""
    correlation_id: str = ""
    latency_ms: int | None = None

    @property
    def trace(self) -> TraceContext:
        return TraceContext(self.traceparent, self.correlation_id)


def recording(changes: Sequence[Changed]) -> RoundTrip:
    """What records changes in the transaction that has made them. Two statements, whatever the
    number."""
    if not changes:
        return RoundTrip()
    published = publishing(
        [
            NotificationStatusChanged(
                event_id=str(uuid_utils.uuid7()),
                notification_id=each.notification_id,
                batch_id=each.batch_id,
                status=each.status,
                timestamp=rfc3339(each.at),
            )
            for each in changes
        ],
        traces=[each.trace for each in changes],
    )
    return RoundTrip(
        [_insertion(changes), *published.statements], nudging(STATUS_FEED, published.on_commit)
    )


def _insertion(changes: Sequence[Changed]) -> Statement:
    texts = (
        [each.notification_id for each in changes],
        [each.batch_id or "" for each in changes],
        [each.caller for each in changes],
        [each.channel for each in changes],
        [each.previous for each in changes],
        [each.status for each in changes],
        ["" if each.latency_ms is None else str(each.latency_ms) for each in changes],
    )
    # All at once, as texts between quotes: isoformat() of each would cost as much as the rest.
    moments = msgspec.json.encode([each.at for each in changes]).decode()
    return INSERT_CHANGES, (*map(text_array_literal, texts), f"{{{moments[1:-1]}}}")


INSERT_CHANGES = """
    INSERT INTO notification_status_log
        (notification_id, batch_id, caller, channel, previous, status, latency_ms, at)
    SELECT id, nullif(batch_id, '')::uuid, caller, channel, previous, status,
           nullif(latency_ms, '')::int, at
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::timestamptz[]) WITH ORDINALITY
        AS change (id, batch_id, caller, channel, previous, status, latency_ms, at, position)
    ORDER BY position
"""
