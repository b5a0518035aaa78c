"""How much lies in RabbitMQ: the relay's queue and its dead-letter queue, asked every few seconds.

Each question has a channel of its own on the consumer's connection: one for a queue that is not there
ends its channel, and the channel that consumes has everything in hand.
"""

from __future__ import annotations

import math
from functools import partial

from pika import SelectConnection, exceptions, frame
from pika.channel import Channel
from prometheus_client import Gauge

from outbox.rabbitmq import metrics
from outbox.rabbitmq.link import Link
from outbox.rabbitmq.policy import RelayPolicy

__all__ = ["UNKNOWN", "Depths"]

UNKNOWN = math.nan
_NOT_FOUND = 404


class Depths:
    """Sets two gauges; they are UNKNOWN while RabbitMQ does not answer. Of the thread of the link's loop."""

    def __init__(self, policy: RelayPolicy, link: Link) -> None:
        self._link = link
        self._every = policy.depths_every
        self._queues: dict[str, Gauge] = {
            policy.queue: metrics.QUEUED,
            policy.dead_letter_queue: metrics.LETTERS_QUEUED,
        }
        # A dead-letter queue is made with the first letter, so one that is not there holds none.
        self._missing = {policy.queue: UNKNOWN, policy.dead_letter_queue: 0.0}
        self._next = 0.0
        self._asked: dict[str, SelectConnection] = {}  # queue -> where, while it is not answered
        for gauge in self._queues.values():
            gauge.set(UNKNOWN)

    def look(self, now: float) -> None:
        """Once a second: ask where it is time."""
        if now < self._next:
            return
        self._next = now + self._every
        for queue, gauge in self._queues.items():
            connection = self._link.usable
            if connection is None:
                gauge.set(UNKNOWN)
            elif self._asked.get(queue) is connection:
                gauge.set(UNKNOWN)  # no second question before the answer to the first
            else:
                self._asked[queue] = connection
                connection.channel(on_open_callback=partial(self._ask, queue, connection))

    def _ask(self, queue: str, connection: SelectConnection, probe: Channel) -> None:
        def answered(answer: frame.Method) -> None:
            self._note(queue, connection, answer.method.message_count)
            probe.close()

        def closed(_: Channel, reason: Exception) -> None:
            if isinstance(reason, exceptions.ChannelClosedByClient):
                return
            missing = (
                isinstance(reason, exceptions.ChannelClosedByBroker)
                and reason.reply_code == _NOT_FOUND
            )
            self._note(queue, connection, self._missing[queue] if missing else UNKNOWN)

        probe.add_on_close_callback(closed)
        probe.queue_declare(queue, passive=True, callback=answered)

    def _note(self, queue: str, connection: SelectConnection, messages: float) -> None:
        """What an old connection says is of no use, and what a new one is asked stays asked."""
        if self._asked.get(queue) is connection:
            del self._asked[queue]
            self._queues[queue].set(messages)
