"""Acknowledgements: every settled tag once, none that is open, in as few frames as there are holes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.rabbitmq.deliveries import Delivery, InHand
from outbox.rabbitmq.properties import Properties


def a_delivery(tag: int, *, size: int = 1, arrived: float = 0.0) -> Delivery:
    return Delivery(
        tag, tag, b"b" * size, Properties(), exchange="", routing_key="", arrived=arrived
    )


class Channel:
    """What RabbitMQ knows of one channel: it closes it when a tag is unknown."""

    def __init__(self) -> None:
        self.open: set[int] = set()

    def ack(self, tag: int, multiple: bool) -> set[int]:
        assert tag in self.open, f"406 unknown delivery tag {tag}"
        acked = {each for each in self.open if each <= tag} if multiple else {tag}
        self.open -= acked
        return acked


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60))
def test_no_tag_twice_and_no_open_one(steps: list[tuple[int, bool]]) -> None:
    """Deliveries come, are settled in any order, and acknowledgements are sent now and then, in runs
    alone or single ones too."""
    hand, channel = InHand(), Channel()
    deliveries: list[Delivery] = []
    settled: set[int] = set()
    for now, (number, flag) in enumerate(steps):
        if number >= len(deliveries):
            delivery = a_delivery(len(deliveries) + 1, size=number)
            deliveries.append(delivery)
            hand.add(delivery)
            channel.open.add(len(deliveries))
            continue
        if number + 1 in channel.open:
            settled.add(number + 1)
        hand.settle(deliveries[number], now)
        for tag, multiple in hand.due(settled_before=now if flag else -1):
            assert channel.ack(tag, multiple) <= settled
        first_open = min(channel.open - settled, default=len(deliveries) + 1)
        assert not {tag for tag in channel.open if tag < first_open}, "the run was not acknowledged"
        if flag:
            assert not channel.open & settled
    assert len(hand) == len(channel.open)
    assert hand.bytes == sum(len(deliveries[tag - 1].raw) for tag in channel.open)


def test_single_ones_wait_for_company() -> None:
    hand = InHand()
    deliveries = [a_delivery(tag) for tag in (1, 2, 3)]
    for delivery in deliveries:
        hand.add(delivery)
    hand.settle(deliveries[1], 5.0)
    assert hand.due(settled_before=4.9) == []
    assert hand.due(settled_before=5.0) == [(2, False)]
    hand.settle(deliveries[2], 6.0)
    hand.settle(deliveries[0], 6.0)
    assert hand.due(settled_before=0.0) == [(3, True)]


def test_a_redelivery_takes_the_place_of_the_first() -> None:
    hand = InHand()
    first = a_delivery(1, arrived=1.0)
    hand.add(first)
    hand.lose()
    assert (first.tag, len(hand), hand.bytes) == (None, 0, 0)
    again = a_delivery(1, arrived=9.0)
    hand.add(again)
    hand.adopt(first, again)
    assert (first.tag, again.tag, hand.oldest()) == (1, None, 9.0)
    hand.settle(first, 10.0)
    assert hand.due(settled_before=0.0) == [(1, True)]


def test_what_is_settled_after_its_channel_is_gone_is_acknowledged_nowhere() -> None:
    hand = InHand()
    delivery = a_delivery(1)
    hand.add(delivery)
    hand.lose()
    hand.settle(delivery, 0.0)
    assert hand.due(settled_before=1.0) == []
