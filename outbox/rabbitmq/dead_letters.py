"""The connection that publishes dead letters, another than the consumer's: RabbitMQ stops reading one
that publishes while its memory or disk is short."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pika import exceptions, frame, spec
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from outbox.envelope import rfc3339
from outbox.rabbitmq import metrics
from outbox.rabbitmq.deliveries import Delivery
from outbox.rabbitmq.link import Link, ask_for_confirms, shown
from outbox.rabbitmq.message import DELIVERY_COUNT
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.properties import Properties

__all__ = ["PREFIX", "DeadLetters"]

PREFIX = "x-relay-"
_ID, _KIND, _REASON, _TIME, _EXCHANGE, _ROUTING_KEY, _CUT, _SERIAL = (
    f"{PREFIX}{name}"
    for name in (
        "id",
        "kind",
        "reason",
        "time",
        "exchange",
        "routing-key",
        "headers-left-out",
        "serial",
    )
)
_REASON_BYTES = 1000
_OTHER_BYTES = 400
_IN_FLIGHT = 200
_FRAME_ROOM = 64  # bytes of a content header's frame beside the properties

log = structlog.get_logger("outbox.relay")


@dataclass(slots=True)
class _Letter:
    delivery: Delivery
    kind: str
    reason: str
    id: str
    returned: bool = False


class DeadLetters(Link):
    """`add` a delivery; `on_confirmed` is called with it once RabbitMQ has it in a queue. What is
    refused is tried again, and meanwhile stays unacknowledged in its own queue."""

    def __init__(
        self, policy: RelayPolicy, loop: IOLoop, *, on_confirmed: Callable[[Delivery], None]
    ) -> None:
        super().__init__("dead-letters", policy.url, loop)
        self._policy = policy
        self._on_confirmed = on_confirmed
        self._waiting: deque[_Letter] = deque()
        self._sent: dict[int, _Letter] = {}  # by the number that RabbitMQ confirms
        self._number = 0  # of the last one on this channel
        self._missing = ""  # what the last channel did not find
        self._asking = ""
        self._ready = False
        self._may_send_from = 0.0
        self._opened = False
        self.refused = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def on_its_way(self) -> int:
        """Letters that were sent and neither confirmed nor refused."""
        return len(self._sent)

    def add(self, delivery: Delivery, kind: str, reason: str) -> None:
        """Publish it as soon as it can be; `kind` is one of metrics.KINDS."""
        letter = _Letter(delivery, kind, reason, str(uuid.uuid4()))
        self._waiting.append(letter)
        if not self._opened:
            self._opened = True
            self.open()
        self._send()

    def channel_opened(self, channel: Channel) -> None:
        self._declare(channel)

    def channel_lost(self, reason: object) -> None:
        """What was not confirmed may be in the queue or not: it is sent again."""
        self._ready = False
        unsure = list(self._sent.values())
        self._sent.clear()
        for letter in reversed(unsure):
            letter.returned = False
            self._waiting.appendleft(letter)
        if unsure:
            log.warning("dead_letters_unconfirmed", letters=len(unsure), reason=shown(reason))

    def _declare(self, channel: Channel) -> None:
        """Exchange, queue and binding: passive first, on this channel; one that is missing closes it,
        and the next channel makes it."""
        exchange, queue = self._policy.exchange, self._policy.dead_letter_queue
        missing = self._missing
        self._missing = ""
        self._asking = "exchange"

        def bound(_: object) -> None:
            self._asking = ""
            self._began(channel)

        def queue_there(_: object) -> None:
            self._asking = "binding"
            channel.queue_bind(queue, exchange, self._policy.queue, callback=bound)

        def exchange_there(_: object) -> None:
            self._asking = "queue"
            channel.queue_declare(
                queue, passive=missing != "queue", durable=True, callback=queue_there
            )

        channel.add_on_close_callback(self._declaration_ended)
        channel.exchange_declare(
            exchange,
            "direct",
            passive=missing != "exchange",
            durable=True,
            callback=exchange_there,
        )

    def _declaration_ended(self, _: Channel, reason: Exception) -> None:
        if isinstance(reason, exceptions.ChannelClosedByBroker) and reason.reply_code == 404:
            self._missing = self._asking

    def _began(self, channel: Channel) -> None:
        ask_for_confirms(channel.connection)
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._start(channel))
        channel.add_on_return_callback(self._returned)

    def _start(self, channel: Channel) -> None:
        if channel is self.channel:
            self._ready = True
            self._number = 0
            self.worked()
            self._send()

    def _send(self) -> None:
        now = time.monotonic()
        if not self._ready or self.is_blocked or now < self._may_send_from:
            return
        while self._waiting and len(self._sent) < _IN_FLIGHT and self.channel is not None:
            if not self.channel.is_open:
                return
            letter = self._waiting.popleft()
            if letter.delivery.tag is None:
                continue  # its own channel is gone: it comes again
            self._number += 1
            self._sent[self._number] = letter
            self.channel.basic_publish(
                self._policy.exchange,
                self._policy.queue,
                letter.delivery.raw,
                self._properties(letter),
                mandatory=True,
            )

    def look(self) -> None:
        """Once a second: send what waits after a pause."""
        self._send()

    def _properties(self, letter: _Letter) -> Properties:
        delivery = letter.delivery
        added: dict[str, str | int] = {
            _ID: letter.id,
            _KIND: letter.kind,
            _REASON: _cut(letter.reason, _REASON_BYTES),
            _TIME: rfc3339(datetime.now(UTC)),
            _EXCHANGE: _cut(delivery.exchange, _OTHER_BYTES),
            _ROUTING_KEY: _cut(delivery.routing_key, _OTHER_BYTES),
            _SERIAL: self._number,
        }
        # The count of the queue it came from would be taken for that of the queue it goes to.
        made = delivery.properties.without_headers(DELIVERY_COUNT).with_headers(added)
        assert self._connection is not None
        if len(made.raw) + _FRAME_ROOM <= self._connection.params.frame_max:
            return made
        return delivery.properties.only({**added, _CUT: "they leave no room for these"})

    def _returned(
        self, _: Channel, method: spec.Basic.Return, properties: Properties, body: bytes
    ) -> None:
        """No queue took it; the confirmation follows."""
        letter = self._sent.get(properties.number(_SERIAL))
        if letter is not None:
            letter.returned = True

    def _confirmed(self, confirmation: frame.Method) -> None:
        method = confirmation.method
        taken = isinstance(method, spec.Basic.Ack)
        last = method.delivery_tag
        numbers = [n for n in self._sent if n <= last] if method.multiple else [last]
        for number in numbers:
            letter = self._sent.pop(number, None)
            if letter is None:
                continue
            if taken and not letter.returned:
                metrics.DEAD_LETTERS.labels(letter.kind).inc()
                self._on_confirmed(letter.delivery)
            else:
                self._refused(letter, "no queue took it" if letter.returned else "nacked")
        self._look_again()
        self._send()

    def _refused(self, letter: _Letter, reason: str) -> None:
        letter.returned = False
        self._waiting.append(letter)
        self._may_send_from = time.monotonic() + self._policy.letter_again
        self.refused += 1
        metrics.LETTERS_REFUSED.inc()
        log.error(
            "dead_letter_refused",
            exchange=self._policy.exchange,
            event_id=letter.delivery.event_id,
            reason=reason,
        )
        self._ready = False

    def _look_again(self) -> None:
        """After a refusal the next channel looks at exchange, queue and binding again. Not before the
        others are answered: what is confirmed to nobody would be published twice."""
        if not self._ready and not self._sent and self.channel is not None and self.channel.is_open:
            self.channel.close()


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8", "backslashreplace")[:size].decode("utf-8", "ignore")
