"""What is in hand: deliveries in the order of their tags, and which acknowledgements are due. A tag is
forgotten when it is acknowledged: RabbitMQ closes a channel that does so twice."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from itertools import takewhile
from typing import NamedTuple

from outbox.rabbitmq.body import MessageBody
from outbox.rabbitmq.properties import Properties

__all__ = ["Ack", "Delivery", "InHand"]


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """One delivery on its way, and later what is known of its event.

    number     order of arrival in this process; a redelivery takes the place of the first
    tag        None: its channel is gone, so it cannot be acknowledged any more
    attempts   times that Kafka has refused it alone
    followers  deliveries of the same event id behind it, which wait for what becomes of it
    """

    number: int
    tag: int | None
    raw: bytes
    properties: Properties
    _: KW_ONLY
    exchange: str
    routing_key: str
    arrived: float
    redelivered: bool = False
    body: MessageBody | None = None
    digest: str = ""
    attempts: int = 0
    produced: bool = False
    followers: list[Delivery] = field(default_factory=list)

    @property
    def event_id(self) -> str:
        """Empty if the body cannot be read."""
        return self.body.event_id if self.body is not None else ""


class Ack(NamedTuple):
    """One acknowledgement: of this tag, and with `multiple` of all before it."""

    tag: int
    multiple: bool


class InHand:
    """The unacknowledged tags of one channel."""

    def __init__(self) -> None:
        self._open: dict[int, Delivery] = {}  # in the order of the tags; settled ones among them
        self._settled: dict[int, float] = {}  # tag -> when
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, delivery: Delivery) -> None:
        assert delivery.tag is not None
        self._open[delivery.tag] = delivery
        self.bytes += len(delivery.raw)

    def adopt(self, first: Delivery, again: Delivery) -> None:
        """`again` is a redelivery of `first`, whose channel is gone: its tag becomes that of
        `first`."""
        assert again.tag is not None
        first.tag, again.tag = again.tag, None
        self._open[first.tag] = first
        self.bytes += len(first.raw) - len(again.raw)
        first.arrived = again.arrived

    def settle(self, delivery: Delivery, now: float) -> None:
        if delivery.tag is not None:
            self._settled[delivery.tag] = now

    def due(self, *, settled_before: float) -> list[Ack]:
        """The acknowledgements to send now: one for the run up to the first open delivery, single
        ones behind it, those that have been settled before that moment."""
        if not self._settled:
            return []
        acks = []
        run = list(takewhile(self._settled.__contains__, self._open))
        if run:
            acks.append(Ack(run[-1], multiple=True))
        for tag in run:
            self._forget(tag)
        for tag in [tag for tag, when in self._settled.items() if when <= settled_before]:
            self._forget(tag)
            acks.append(Ack(tag, multiple=False))
        return acks

    def oldest(self) -> float | None:
        return min((each.arrived for each in self._open.values()), default=None)

    def sizes(self) -> list[int]:
        return [len(delivery.raw) for delivery in self._open.values()]

    def lose(self) -> None:
        """The channel is gone: no tag of it means anything any more."""
        for delivery in self._open.values():
            delivery.tag = None
        self._open.clear()
        self._settled.clear()
        self.bytes = 0

    def _forget(self, tag: int) -> None:
        delivery = self._open.pop(tag)
        self.bytes -= len(delivery.raw)
        delivery.tag = None
        del self._settled[tag]
