"""Lanes and partitions are for ever: a change would break the order of keys that are under way."""

from __future__ import annotations

from collections import Counter

from outbox.topics import LANES, Topic, lane_of, partition_of


def test_the_lane_of_a_key_is_the_same_in_every_release() -> None:
    assert [lane_of(key) for key in ("", "a", "order-1", "kunde-ä")] == [0, 3, 47, 17]


def test_keys_spread_over_all_lanes() -> None:
    lanes = Counter(lane_of(f"key-{number}") for number in range(6400))
    assert set(lanes) == set(range(LANES))
    assert max(lanes.values()) < 2 * min(lanes.values())


def test_a_lane_has_one_partition_and_every_partition_a_lane() -> None:
    partitions = [partition_of(lane, 12) for lane in range(LANES)]
    assert set(partitions) == set(range(12))


def test_the_dead_letter_topic_is_named_after_its_topic() -> None:
    assert Topic("orders.created").dlq == "orders.created.dlq"
