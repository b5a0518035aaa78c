"""When a client counts as stalled, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from outbox.bridge.client_watch import StallWatch
from outbox.kafka.admin import KafkaUnavailable
from outbox.topics import PartitionKey

ONE, OTHER = ("t", 1), ("t", 2)
Said = Mapping[PartitionKey, int | str]


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("outbox.bridge.client_watch.time.monotonic", lambda: clock.now)
    return clock


class Watched:
    """A watch with ten seconds between looks, and what it is told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.watch = StallWatch(10.0)
        self.said: Said | None = {}
        self.looks = 0

    def _waiting(self) -> Said:
        self.looks += 1
        if self.said is None:
            raise KafkaUnavailable("away")
        return self.said

    def after(self, seconds: float, said: Said | None) -> list[PartitionKey]:
        self._clock.now += seconds
        self.said = said
        return self.watch.check(self._waiting)


@pytest.fixture
def watched(clock: Clock) -> Watched:
    return Watched(clock)


def test_what_stays_the_same_between_two_looks_is_stalled(watched: Watched) -> None:
    assert watched.after(10, {ONE: 7, OTHER: 7}) == []
    assert watched.after(10, {ONE: 7, OTHER: 8}) == [ONE]


def test_what_changes_or_waits_no_longer_is_not(watched: Watched) -> None:
    looks: list[Said] = [{ONE: "a-1"}, {ONE: "a-2"}, {}, {ONE: "a-2"}, {OTHER: "a-2"}]
    for said in looks:
        assert watched.after(10, said) == []


def test_no_look_before_its_time(watched: Watched) -> None:
    for _ in range(3):
        watched.after(9, {ONE: 7})
    assert watched.looks == 1


def test_while_kafka_is_away_nothing_is_compared(watched: Watched) -> None:
    looks: list[Said | None] = [{ONE: 7}, None, {ONE: 7}]
    for said in looks:
        assert watched.after(10, said) == []
    assert watched.after(10, {ONE: 7}) == [ONE]


def test_a_look_that_comes_much_too_late_compares_nothing(watched: Watched) -> None:
    """The others were perhaps held up by the same: a frozen machine, a database that hangs."""
    assert watched.after(10, {ONE: 7}) == []
    assert watched.after(21, {ONE: 7}) == []
    assert watched.after(10, {ONE: 7}) == [ONE]


def test_a_look_that_is_forgotten_is_not_compared_with(watched: Watched) -> None:
    assert watched.after(10, {ONE: 7}) == []
    watched.watch.forget()
    assert watched.after(10, {ONE: 7}) == []
    assert watched.after(10, {ONE: 7}) == [ONE]


def stalls_within(watched: Watched, seconds: int) -> int:
    return sum(bool(watched.after(1, {ONE: 7})) for _ in range(seconds))


def test_what_leads_to_nothing_is_done_more_and_more_rarely(watched: Watched) -> None:
    assert stalls_within(watched, 3600) == 9
    watched.after(300, {ONE: 8})
    watched.after(300, {ONE: 9})  # a change: it was worth it
    assert stalls_within(watched, 30) == 1
