"""The relay's canary: a message without meaning, put into its own queue once a minute. Its age shows a delay
between RabbitMQ and Kafka also where nobody else sends anything."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from pika import BasicProperties
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from outbox.envelope import rfc3339
from outbox.rabbitmq import metrics
from outbox.rabbitmq.deliveries import Delivery
from outbox.rabbitmq.link import Link
from outbox.rabbitmq.policy import RelayPolicy
from outbox.topics import CANARY_TYPE

__all__ = ["RelayCanary", "is_canary"]

_PREFIX = "canary-"
# The id has the moment of sending, in milliseconds: another relay of the queue may take it.
_ID = re.compile(rf"{_PREFIX}(\d{{13}})-[0-9a-f]{{32}}")
_PERSISTENT = 2


def is_canary(event_id: str) -> bool:
    """Whether a relay has sent it."""
    return event_id.startswith(_PREFIX) and _ID.fullmatch(event_id) is not None


class RelayCanary(Link):
    """Sends canaries on a connection of its own, because RabbitMQ stops reading one that publishes while its
    memory is short. Of the thread of the loop.

    The gauge is the age of the newest canary that came through here; before the first, that of the first
    that was sent; NaN where none is sent."""

    def __init__(self, policy: RelayPolicy, loop: IOLoop) -> None:
        super().__init__("canary", policy.url, loop)
        self._policy = policy
        self._opened = False
        self._next = 0.0
        self._counts_from = math.nan  # of the age; seconds since 1970, as the next one
        self._newest_sent = 0.0
        metrics.CANARY_AGE.set(math.nan)

    def look(self, now: float) -> None:
        """Once a second."""
        if not self._policy.canary_every:
            return
        if not self._opened:
            self._opened = True
            self.open()
        channel = self.channel
        if channel is not None and channel.is_open and not self.is_blocked and now >= self._next:
            # Canaries that do not come back would fill the queue of a relay that stands still.
            self._next = now + self._policy.canary_pause
            self._send(channel)
        metrics.CANARY_AGE.set(time.time() - self._counts_from)

    def note(self, delivered: Iterable[Delivery], now: float) -> None:
        """Kafka has these."""
        for delivery in delivered:
            if is_canary(delivery.event_id):
                self._passed(int(delivery.event_id.split("-")[1]) / 1000, now)

    def _passed(self, sent_at: float, now: float) -> None:
        if not sent_at <= self._counts_from:
            self._counts_from = min(sent_at, time.time())
        if sent_at >= self._newest_sent:
            self._next = min(self._next, now + self._policy.canary_every)

    def _send(self, channel: Channel) -> None:
        sent_at = round(time.time() * 1000) / 1000  # as its id says it
        body = {
            "event_id": f"{_PREFIX}{sent_at * 1000:.0f}-{uuid.uuid4().hex}",
            "payload": {
                "eventType": CANARY_TYPE,
                "sentAt": rfc3339(datetime.fromtimestamp(sent_at, UTC)),
            },
        }
        properties = BasicProperties(delivery_mode=_PERSISTENT, content_type="application/json")
        # The default exchange leads to the queue of this name.
        content = msgspec.json.encode(body)
        channel.basic_publish("", self._policy.queue, content, properties, mandatory=True)
        self._newest_sent = sent_at
        if math.isnan(self._counts_from):
            self._counts_from = sent_at

    def _returned(self, *_: object) -> None:
        """There is no such queue yet, or no more: the next look sends another canary."""
        self._next = 0.0

    def channel_opened(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._returned)
        self.worked()

    def channel_lost(self, reason: object) -> None:
        """Nothing is awaited on it: a canary that did not arrive is one that is late."""
