"""Percentiles from buckets against percentiles from everything."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.histogram import Histogram
from loadtest.tally import SLOTS, LoadTimeline

VALUES = st.lists(st.integers(0, 10**11), min_size=1, max_size=200)


def histogram(values: list[int], bits: int = 11) -> Histogram:
    made = Histogram(bits)
    for value in values:
        made.record(value)
    return made


@given(VALUES, st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_ranked_value_within_a_thousandth(
    values: list[int], percent: float
) -> None:
    exact = sorted(values)[max(0, math.ceil(round(len(values) * percent / 100, 6)) - 1)]
    assert exact <= histogram(values).percentile(percent) <= exact * (1 + 2**-10)


def test_small_values_are_exact() -> None:
    made = histogram(list(range(1, 1001)))
    assert [made.percentile(p) for p in (50, 90, 99, 99.9, 100)] == [500, 900, 990, 999, 1000]


@given(VALUES, VALUES)
def test_adding_is_recording_both(one: list[int], other: list[int]) -> None:
    made = histogram(one)
    made.add(histogram(other))
    whole = histogram(one + other)
    assert list(made.buckets()) == list(whole.buckets())
    assert (made.count, made.max) == (whole.count, whole.max)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(Histogram().percentile(50))


def test_a_negative_value_is_nothing() -> None:
    made = histogram([-5])
    assert (made.count, made.percentile(50), made.max) == (1, 0, 0)


def test_memory_does_not_grow_with_what_is_recorded() -> None:
    made = Histogram(6)
    for value in range(0, 3_000_000, 7):
        made.record(value)
    assert len(list(made.buckets())) < 64 + 32 * 16


@pytest.mark.parametrize("seconds", [599, 600, 5000])
def test_a_long_run_has_wider_slots_and_loses_nothing(seconds: int) -> None:
    timeline = LoadTimeline()
    for second in range(seconds + 1):
        slot = timeline.at(second)
        slot.due += 1
        slot.latency.record(second)
    assert len(timeline.slots) <= SLOTS
    assert timeline.width == {599: 1, 600: 2, 5000: 16}[seconds]
    assert sum(slot.due for slot in timeline.slots) == seconds + 1
    assert timeline.slots[3].due == timeline.width
    assert timeline.slots[0].latency.max == timeline.width - 1
