"""From numbers to shapes: nothing outside the drawing, nothing that is there and cannot be seen."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.admin.charts import PLOT_HEIGHT, BarChart, ChartReading, bar_chart, compact, parts_of

values = st.one_of(
    st.integers(-5, 10**30),
    st.integers(0, 10**30).map(lambda cents: Decimal(cents).scaleb(-2)),
)


def chart(*numbers: Decimal | int) -> BarChart:
    return bar_chart([ChartReading(label="l", value=number, words="t") for number in numbers])


def percent(text: str) -> float:
    assert text.endswith("%")
    return float(text[:-1])


@given(st.lists(values, min_size=1, max_size=70))
def test_every_bar_lies_in_the_chart_and_is_as_high_as_its_number(
    numbers: list[Decimal | int],
) -> None:
    drawn = chart(*numbers)
    highest = max(numbers)
    tallest = max(float(bar.height) for bar in drawn.bars)
    for number, bar in zip(numbers, drawn.bars, strict=True):
        x, width, height = percent(bar.x), percent(bar.width), float(bar.height)
        assert 0 <= x < x + width <= 100.001
        assert 0 <= height <= PLOT_HEIGHT
        assert (height > 0) == (number > 0)
        assert abs(float(bar.y) + height - drawn.base) < 0.11
        if number > 0:
            assert abs(height - max(2.0, tallest * float(number / Decimal(highest)))) < 0.2
    assert (drawn.peak is None) == (highest <= 0)
    assert len(drawn.lines) <= 6
    assert all(0 <= float(line.y) <= drawn.base for line in drawn.lines)


@pytest.mark.parametrize(
    ("highest", "lines"),
    [
        (1, ["1"]),
        (4, ["1", "2", "3", "4"]),
        (14, ["5", "10", "15"]),
        (60_800, ["20k", "40k", "60k", "80k"]),
        (10**6, ["500k", "1M"]),
        (Decimal("0.05"), ["1"]),
    ],
)
def test_the_scale_has_round_numbers(highest: Decimal | int, lines: list[str]) -> None:
    assert [line.text for line in chart(0, highest).lines] == lines


def test_labels_at_the_edges_grow_inwards() -> None:
    assert [bar.anchor for bar in chart(*[1] * 60).bars[::59]] == ["start", "end"]
    first = chart(9, *[1] * 59).peak
    assert first is not None
    assert (first.anchor, first.text) == ("start", "9")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (950, "950"),
        (1200, "1.2k"),
        (2000, "2k"),
        (150_000, "150k"),
        (34_000_000, "34M"),
        (Decimal("0.25"), "0.25"),
        (Decimal("12.50"), "12.5"),
        (Decimal("9999999999999999.99"), "10P"),
    ],
)
def test_compact_numbers(number: Decimal | int, text: str) -> None:
    assert compact(number) == text


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=6))
def test_parts_fill_the_whole_and_follow_each_other(counts: list[int]) -> None:
    parts = parts_of([("P", count) for count in counts])
    assert sum(percent(part.width) for part in parts) == pytest.approx(
        100 if sum(counts) else 0, abs=0.01
    )
    for before, after in itertools.pairwise(parts):
        assert percent(after.x) == pytest.approx(
            percent(before.x) + percent(before.width), abs=0.01
        )


def test_parts_are_told_in_words() -> None:
    [first, second] = parts_of([("PAID", 2500), ("CREATED", 7500)])
    assert (first.words, first.share, second.words, second.share) == (
        "2,500",
        "25.0 %",
        "7,500",
        "75.0 %",
    )
