"""A relay that kills itself at a step, or believes another limit of its topic; and its mutants.

CHAOS_RELAY_DIES    the step at which it dies, in mid-stream
CHAOS_RELAY_LIMIT   bytes that it takes for the topic's limit, whatever Kafka says
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from outbox.rabbitmq.claims import ClaimOutcome, EventClaims
from outbox.rabbitmq.consuming import Consuming
from outbox.rabbitmq.dead_letters import DeadLetters
from outbox.rabbitmq.deliveries import Delivery, InHand
from outbox.rabbitmq.events import Events
from outbox.rabbitmq.relay import Relay
from outbox.rabbitmq.sending import Sending
from outbox.rabbitmq.watch import Watch

__all__ = ["BREAKS", "install"]

MID_STREAM = 3  # times that a step has been taken


def install() -> None:
    """What the environment asks for."""
    if step := os.environ.get("CHAOS_RELAY_DIES"):
        _STEPS[step]()
    if limit := os.environ.get("CHAOS_RELAY_LIMIT"):
        asked = Watch._ask

        def ask(self: Watch) -> None:
            asked(self)
            self.limit = int(limit)

        Watch._ask = ask  # type: ignore[method-assign]


def _dies(owner: type, name: str, *, after: bool, when: Callable[..., bool]) -> Callable[[], None]:
    """Installs a death in a method, the third time that `when` holds of its arguments."""

    def put() -> None:
        real = getattr(owner, name)
        seen = [0]

        @wraps(real)
        def dying(self: Any, *arguments: Any, **options: Any) -> Any:
            counts = when(self, *arguments)
            answer = real(self, *arguments, **options) if after else None
            seen[0] += counts
            if counts and seen[0] >= MID_STREAM:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer if after else real(self, *arguments, **options)

        setattr(owner, name, dying)

    return put


_STEPS: dict[str, Callable[[], None]] = {
    "taken": _dies(Events, "take", after=False, when=lambda self, _: bool(self.fresh)),
    "claimed": _dies(EventClaims, "claim", after=True, when=lambda _, events: bool(events)),
    "sent": _dies(Sending, "_send", after=True, when=lambda self, _: self.on_its_way > 0),
    "reported": _dies(Events, "_published", after=False, when=lambda _, done, __: bool(done)),
    "marked": _dies(EventClaims, "mark_done", after=True, when=lambda _, events: bool(events)),
    "acknowledged": _dies(Consuming, "ack", after=True, when=lambda _, acks: bool(acks)),
}


def ack_first() -> None:
    """Acknowledge when it is handed to Kafka's client."""
    add = Sending.add

    def add_and_ack(self: Sending, deliveries: Any) -> None:
        add(self, deliveries)
        for delivery in deliveries:
            _hands[0].settle(delivery, 0.0)

    _hands: list[InHand] = []
    made = InHand.__init__

    def remember(self: InHand) -> None:
        made(self)
        _hands.append(self)

    InHand.__init__ = remember  # type: ignore[method-assign]
    Sending.add = add_and_ack  # type: ignore[method-assign]
    # A tag that was acknowledged is settled again when Kafka reports, and is not to be sent then.
    settle = InHand.settle

    def once(self: InHand, delivery: Delivery, now: float) -> None:
        if delivery.tag in self._open:
            settle(self, delivery, now)

    InHand.settle = once  # type: ignore[method-assign]


def mark_first() -> None:
    """Mark as done what is only claimed."""
    claim = EventClaims.claim

    def claim_and_mark(
        self: EventClaims, events: Sequence[tuple[str, str]]
    ) -> list[ClaimOutcome] | None:
        outcomes = claim(self, events)
        if outcomes is not None:
            self.mark_done(
                [
                    event
                    for event, outcome in zip(events, outcomes, strict=True)
                    if outcome is ClaimOutcome.MINE
                ]
            )
        return outcomes

    EventClaims.claim = claim_and_mark  # type: ignore[method-assign]


def without_owner() -> None:
    """All relays are one owner."""
    made = EventClaims.__init__

    def of_everybody(self: EventClaims, server: Any, owner: str, **options: Any) -> None:
        made(self, server, "everybody", **options)

    EventClaims.__init__ = of_everybody  # type: ignore[method-assign]


def lease_unasked() -> None:
    """Take over whatever another has claimed."""
    from outbox.rabbitmq import claims  # noqa: PLC0415

    claims._CLAIM = claims._CLAIM.replace("== 1 then return 0", "== 2 then return 0")


def old_tag() -> None:
    """A redelivery is somebody else's: the first keeps the tag of its channel that is gone."""

    def lose(self: InHand) -> None:
        self._open.clear()
        self._settled.clear()
        self.bytes = 0

    InHand.lose = lose  # type: ignore[method-assign]


def letter_unconfirmed() -> None:
    """A dead letter is acknowledged once it is written to the connection."""
    send = DeadLetters._send

    def send_and_confirm(self: DeadLetters) -> None:
        send(self)
        for number in list(self._sent):
            self._on_confirmed(self._sent.pop(number).delivery)

    DeadLetters._send = send_and_confirm  # type: ignore[method-assign]


def requeue() -> None:
    """What waits for Kafka is sent back, to be taken again at once."""
    look = Relay._look_at_rabbitmq

    def look_and_requeue(self: Relay, now: float) -> None:
        if not self.kafka.is_well and self.consuming.channel is not None and len(self._in_hand):
            self.consuming.channel.basic_nack(0, multiple=True, requeue=True)
            self._events.lose_channel()
        self.kafka.wants_more = True
        look(self, now)

    Relay._look_at_rabbitmq = look_and_requeue  # type: ignore[method-assign]


def purge() -> None:
    """Give up what Kafka has not acknowledged after two seconds, and send it by a new producer."""
    step = Sending.step

    def step_and_purge(self: Sending, now: float) -> Any:
        if self._stream is not None and self._stream.waited(time.monotonic()) > 2.0:
            self._ends_at = 0.0
        return step(self, now)

    Sending.step = step_and_purge  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {
    "relay-ack-first": ack_first,
    "relay-mark-first": mark_first,
    "relay-without-owner": without_owner,
    "relay-lease-unasked": lease_unasked,
    "relay-old-tag": old_tag,
    "relay-letter-unconfirmed": letter_unconfirmed,
    "relay-requeue": requeue,
    "relay-purge": purge,
}
