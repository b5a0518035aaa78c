"""/ws: changes of status as they are committed, of one notification, of a batch, or of all."""

from __future__ import annotations

import re
from collections.abc import Mapping

from notifications.realtime import WantedChanges
from notifications.status_log import STATUS_FEED
from restapi.context import caller, is_granted
from restapi.status_consumer import StatusConsumer, refused_query

__all__ = ["StatusFeed"]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


class StatusFeed(StatusConsumer):
    """A key follows what its caller has created; with scope notifications:all, or where no key is
    asked for, everything."""

    log = STATUS_FEED
    parameters = ("notification_id", "batch_id")

    def subject(self, given: Mapping[str, str]) -> WantedChanges:
        return WantedChanges(
            None if is_granted("notifications:all") else caller(),
            _id(given, "notification_id"),
            _id(given, "batch_id"),
        )


def _id(given: Mapping[str, str], name: str) -> str | None:
    text = given.get(name)
    if text is not None and not _UUID.fullmatch(text):
        raise refused_query(name, "Must be a UUID.")
    return text and text.lower()
