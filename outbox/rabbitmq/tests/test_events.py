"""What is known of the events in hand, without any server: dedupe is off and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pika.adapters.select_connection import IOLoop

from outbox.rabbitmq.claims import EventClaims, connected
from outbox.rabbitmq.dead_letters import DeadLetters
from outbox.rabbitmq.deliveries import Delivery, InHand
from outbox.rabbitmq.events import Events
from outbox.rabbitmq.policy import RelayPolicy
from outbox.rabbitmq.properties import Properties
from outbox.rabbitmq.sending import Sending, Sent
from outbox.rabbitmq.watch import Watch

POLICY = RelayPolicy(dedupe=False)


class Desk:
    """The events of one relay, and what is about to be sent."""

    def __init__(self, policy: RelayPolicy, loop: IOLoop) -> None:
        watch = Watch(policy.topic)
        self.hand = InHand()
        self.sending = Sending(policy, watch)
        self.events = Events(
            policy,
            claims=EventClaims(connected(policy.dedupe_url, wait=0.2), "me", ttl=60, pause=1),
            watch=watch,
            in_hand=self.hand,
            sending=self.sending,
            letters=DeadLetters(policy, loop, on_confirmed=lambda _: None),
        )

    def deliver(
        self, tag: int, event_id: str = "1", *, redelivered: bool = False, payload: bytes = b"1"
    ) -> Delivery:
        """A delivery comes, and is looked at."""
        delivery = Delivery(
            tag,
            tag,
            b'{"event_id": "%b", "payload": %b}' % (event_id.encode(), payload),
            Properties(),
            exchange="",
            routing_key="",
            arrived=0.0,
            redelivered=redelivered,
        )
        self.hand.add(delivery)
        self.events.fresh.append(delivery)
        self.events.take(0.0)
        return delivery

    def send(self) -> list[Delivery]:
        """As if Kafka's client had taken all that is ready."""
        sent = self.sending.forget_unsent()
        for delivery in sent:
            delivery.produced = True
        return sent


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    loop = IOLoop()
    yield loop
    loop.close()


def test_a_message_refused_after_its_channel_was_lost_begins_anew(loop: IOLoop) -> None:
    """It cannot be a dead letter any more. If it stayed known, its redelivery would only lend it a
    tag, and wait for ever."""
    desk = Desk(POLICY, loop)
    desk.deliver(1)
    [sent] = desk.send()
    desk.events.lose_channel()
    desk.events.settle(Sent(refused=[(sent, "MSG_SIZE_TOO_LARGE")]), 0.0)
    again = desk.deliver(1, redelivered=True)
    assert desk.send() == [again]


def test_all_that_can_be_in_hand_is_remembered_when_its_channel_is_lost(loop: IOLoop) -> None:
    desk = Desk(replace(POLICY, workers=500), loop)
    count = 50_000
    for tag in range(1, count + 1):
        desk.deliver(tag, str(tag))
    desk.events.settle(Sent(delivered=desk.send()), 0.0)
    desk.events.lose_channel()
    desk.deliver(1, "1", redelivered=True)
    assert desk.send() == []


def test_without_dedupe_repetitions_are_sent_one_after_the_other(loop: IOLoop) -> None:
    """Whether or not the first is still under way when the next one comes."""
    desk = Desk(POLICY, loop)
    wanted = [desk.deliver(1), desk.deliver(2), desk.deliver(3, payload=b"2")]
    sent = []
    while batch := desk.send():
        sent += batch
        desk.events.settle(Sent(delivered=batch), 0.0)
        desk.events.take(0.0)
    assert sent == wanted
    assert desk.hand.due(settled_before=0.0) == [(3, True)]
