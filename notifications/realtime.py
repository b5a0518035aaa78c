"""The status feed: every change of a notification's status, for those who may see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from notifications.status_log import STATUS_FEED
from outbox.database.round_trips import Row
from outbox.envelope import rfc3339_of
from restapi.status_log import StatusLog

__all__ = ["STATUS_LOG", "WantedChanges"]


class WantedChanges(NamedTuple):
    """What a socket follows; None: any. A change has one entry for each combination that it matches."""

    caller: str | None = None
    notification_id: str | None = None
    batch_id: str | None = None


def _matches(row: Row) -> Sequence[WantedChanges]:
    notification_id, batch_id, caller, *_ = row
    batches = (None,) if batch_id is None else (None, batch_id)
    return [
        WantedChanges(each, notification, batch)
        for each in (None, caller)
        for notification in (None, notification_id)
        for batch in batches
    ]


def _message(seq: int, row: Row) -> dict[str, Any]:
    notification_id, _, _, status, timestamp = row
    return {
        "notification_id": notification_id,
        "status": status,
        "timestamp": timestamp,
        "seq": seq,
    }


STATUS_LOG = StatusLog(
    name=STATUS_FEED,
    table="notification_status_log",
    columns=("notification_id::text", "batch_id::text", "caller", "status", rfc3339_of("at")),
    keys=_matches,
    message=_message,
    # Up to which the figures of the channels are counted from it.
    through="SELECT coalesce(min(through_seq), 0) FROM notification_figures",
)
