"""The connection that takes messages: finds or makes the queue, consumes, acknowledges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from pika import exceptions, spec
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from outbox.rabbitmq.deliveries import Ack
from outbox.rabbitmq.link import Link, shown
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.properties import Properties

__all__ = ["Consuming"]

_LOOK_FOR_QUEUE = 1.0  # seconds

log = structlog.get_logger("outbox.relay")

OnMessage = Callable[[Channel, spec.Basic.Deliver, Properties, bytes], None]


class Consuming(Link):
    """Consumes while `wanted` says so. It publishes nothing: RabbitMQ stops reading a connection that
    publishes while its memory is short, and acknowledgements would wait in it.

    The queue is looked for on a channel of its own, because a question for one that is not there
    ends the channel, and with it all that is in hand.
    """

    def __init__(
        self,
        policy: RelayPolicy,
        loop: IOLoop,
        *,
        on_message: OnMessage,
        on_lost: Callable[[], None],
        prefetch: Callable[[], int],
    ) -> None:
        super().__init__("consumer", policy.url, loop)
        self._policy = policy
        self._on_message = on_message
        self._on_lost = on_lost
        self._wanted_prefetch = prefetch
        self._found = False  # since this process began
        self._wants = False
        self._looking = False
        self._consumer = ""  # tag
        self._cancelling = False
        self.prefetch = 0
        self.channels = 0  # opened so far

    @property
    def is_consuming(self) -> bool:
        """Whether messages may come."""
        return bool(self._consumer) and self.is_up

    def want(self, wants: bool) -> None:
        """Take messages, or take none. What is in hand stays there."""
        self._wants = wants
        if wants:
            self._look_for_queue()
        else:
            self._cancel()

    def follow_prefetch(self) -> None:
        """Consume again where another number of messages should be in hand."""
        wanted = self._wanted_prefetch()
        if self.is_consuming and not (self.prefetch / 2 < wanted <= self.prefetch * 1.25):
            self._cancel()

    def ack(self, acks: Sequence[Ack]) -> None:
        """Acknowledge. A channel that is just closing takes none, and its tags come back."""
        channel = self.channel
        if channel is None or not channel.is_open:
            return
        for tag, multiple in acks:
            channel.basic_ack(tag, multiple)

    def give_back(self) -> None:
        """Close the channel until `take_again`: all that is unacknowledged is the queue's again."""
        self.reopens = False
        if self.channel is not None and self.channel.is_open:
            self.channel.close()

    def take_again(self) -> None:
        """Open another channel."""
        self.reopens = True
        self._open_channel()

    def channel_opened(self, channel: Channel) -> None:
        self.channels += 1
        self._consumer, self._cancelling, self._looking = "", False, False
        channel.add_on_cancel_callback(self._cancelled_by_broker)
        self._look_for_queue()

    def channel_lost(self, reason: object) -> None:
        self._consumer, self._cancelling, self._looking = "", False, False
        log.info("channel_lost", reason=shown(reason))
        self._on_lost()

    def _cancel(self) -> None:
        if self.channel is None or not self.is_consuming or self._cancelling:
            return
        self._cancelling = True
        self.channel.basic_cancel(self._consumer, callback=self._cancelled)
        # pika would send back what comes until the broker has heard of it, and a quorum queue
        # without a delivery limit puts such messages at its very end. They are taken instead.
        self.channel._cancelled.discard(self._consumer)

    def _cancelled(self, _: object) -> None:
        self._consumer, self._cancelling = "", False
        if self._wants:
            self._look_for_queue()

    def _cancelled_by_broker(self, _: object) -> None:
        """The queue was deleted, or its node has gone."""
        self._consumer, self._cancelling = "", False
        log.warning("consumer_cancelled", queue=self._policy.queue)
        self._look_again()

    def _look_again(self) -> None:
        self._loop.call_later(_LOOK_FOR_QUEUE, self._look_for_queue)

    def _look_for_queue(self) -> None:
        connection = self.usable
        if not self._wants or self._looking or self.is_consuming or not self.is_up:
            return
        if connection is None:
            return
        self._looking = True
        connection.channel(on_open_callback=self._ask_for_queue)

    def _ask_for_queue(self, probe: Channel) -> None:
        probe.add_on_close_callback(self._queue_not_found)
        probe.queue_declare(
            self._policy.queue, passive=True, callback=lambda _: self._queue_found(probe)
        )

    def _queue_not_found(self, _: Channel, reason: Exception) -> None:
        if isinstance(reason, exceptions.ChannelClosedByClient):
            return
        self._looking = False
        self.complain(reason)
        missing = isinstance(reason, exceptions.ChannelClosedByBroker) and reason.reply_code == 404
        connection = self.usable
        if connection is None:
            return
        if missing and (not self._found or self._policy.create_always):
            self._looking = True
            connection.channel(on_open_callback=self._make_queue)
        else:
            self._look_again()

    def _make_queue(self, probe: Channel) -> None:
        def not_made(_: Channel, reason: Exception) -> None:
            if not isinstance(reason, exceptions.ChannelClosedByClient):
                self._looking = False
                self.complain(reason)
                self._look_again()

        probe.add_on_close_callback(not_made)
        log.warning("queue_made", queue=self._policy.queue)
        probe.queue_declare(
            self._policy.queue, durable=True, callback=lambda _: self._queue_found(probe)
        )

    def _queue_found(self, probe: Channel) -> None:
        self._looking = False
        self._found = True
        probe.close()
        self._consume()

    def _consume(self) -> None:
        channel = self.channel
        if not self._wants or channel is None or not channel.is_open or self._consumer:
            return
        self.prefetch = self._wanted_prefetch()
        channel.basic_qos(prefetch_count=self.prefetch)
        self._consumer = channel.basic_consume(
            self._policy.queue, self._on_message, callback=lambda _: self.worked()
        )
        log.info("consuming", queue=self._policy.queue, prefetch=self.prefetch)
