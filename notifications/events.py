"""The events of notifications: that one is to be made ready, and that its status changed.

Shapes: the contract of the topics notifications.high|normal|low and notification-status.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from outbox.topics import Topic

__all__ = [
    "PENDING_EVENTS",
    "STATUS_TOPIC",
    "HighPending",
    "LowPending",
    "NormalPending",
    "NotificationPending",
    "NotificationStatusChanged",
    "decode_pending",
]

STATUS_TOPIC = Topic("notification-status")

_encode = msgspec.json.Encoder().encode

# Anybody may write to our topics: bounds are asked of what is read.
_Uuid = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=16)]


class NotificationPending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A notification is to be sent: it was accepted, or its schedule has come.

    `event_id` is no part of the value: empty when read back from one.
    """

    topic: ClassVar[Topic]
    source: ClassVar[str] = "/notifications"
    type: ClassVar[str] = "NOTIFICATION_PENDING"

    notification_id: _Uuid
    channel: _Word
    event_id: str = ""

    @property
    def key(self) -> str:
        return self.notification_id

    def to_json(self) -> str:
        """The message's value. Both texts are words that need no escape."""
        return f'{{"notification_id":"{self.notification_id}","channel":"{self.channel}"}}'


class HighPending(NotificationPending, frozen=True, kw_only=True, gc=False):
    """Of priority high."""

    topic: ClassVar[Topic] = Topic("notifications.high")


class NormalPending(NotificationPending, frozen=True, kw_only=True, gc=False):
    """Of priority normal."""

    topic: ClassVar[Topic] = Topic("notifications.normal")


class LowPending(NotificationPending, frozen=True, kw_only=True, gc=False):
    """Of priority low."""

    topic: ClassVar[Topic] = Topic("notifications.low")


# Priority -> what is published.
PENDING_EVENTS: dict[str, type[NotificationPending]] = {
    "high": HighPending,
    "normal": NormalPending,
    "low": LowPending,
}


class _Pending(msgspec.Struct):
    notification_id: _Uuid
    channel: _Word


_pending_decoder = msgspec.json.Decoder(_Pending)


def decode_pending(payload: str) -> str:
    """The id that a value of the three topics names. Raises msgspec.DecodeError for anything else."""
    return _pending_decoder.decode(payload).notification_id


class NotificationStatusChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The status of a notification changed; `batch_id` is null for one outside a batch."""

    topic: ClassVar[Topic] = STATUS_TOPIC
    source: ClassVar[str] = "/notifications"
    type: ClassVar[str] = "NOTIFICATION_STATUS_CHANGED"

    event_id: str
    notification_id: str
    batch_id: str | None
    status: str
    timestamp: str

    @property
    def key(self) -> str:
        """The notification, whose row is locked."""
        return self.notification_id

    def to_json(self) -> str:
        """The message's value."""
        return _encode(self).decode()
