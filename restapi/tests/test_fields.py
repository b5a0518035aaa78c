"""The strict fields, by themselves: what they take and what they give."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError

from restapi.fields import MoneyField, QueryMoment, StrictInteger, Text

LARGEST = Decimal("9999999999.99")


def text() -> Text:
    return Text(max_length=255)


def quantity() -> StrictInteger:
    return StrictInteger(min_value=1, max_value=10_000)


def money() -> MoneyField:
    return MoneyField(max_digits=12, min_value=0)


def message(field: Any, value: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        field.run_validation(value)
    [detail] = refused.value.detail
    return str(detail)


@pytest.mark.parametrize("value", ["u1", " u1 ", "é", "𝄞" * 255, "a" * 255, "null", "0", "\n x"])
def test_text_is_kept_as_it_is(value: str) -> None:
    assert text().run_validation(value) == value


@pytest.mark.parametrize("value", [1, 0, True, False, Decimal("1.5"), [], ["u1"], {}, {"a": 1}])
def test_text_never_converts(value: Any) -> None:
    assert message(text(), value) == "Must be a string."


def test_text_refuses_null() -> None:
    assert message(text(), None) == "This field may not be null."


@pytest.mark.parametrize("value", ["", " ", "\t\n", "\u2003"])
def test_text_refuses_blank(value: str) -> None:
    assert message(text(), value) == "This field may not be blank."


@pytest.mark.parametrize("value", ["\x00", "a\x00b"])
def test_text_refuses_nul_which_postgresql_cannot_store(value: str) -> None:
    assert "Null characters" in message(text(), value)


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
def test_text_refuses_half_a_character(value: str) -> None:
    assert "Surrogate" in message(text(), value)


@pytest.mark.parametrize("value", ["a" * 256, "𝄞" * 256])
def test_text_refuses_more_than_255_characters(value: str) -> None:
    assert "no more than 255" in message(text(), value)


@pytest.mark.parametrize(
    "value", [1, 2, 10_000, Decimal("2.0"), Decimal("1E+2"), Decimal("1.0E+4")]
)
def test_integers(value: int | Decimal) -> None:
    taken = quantity().run_validation(value)
    assert taken == value
    assert type(taken) is int


@pytest.mark.parametrize(
    "value",
    ["2", "", True, False, Decimal("2.5"), Decimal("0.999999"), Decimal("1E-999999"), [], {}, [1]],
)
def test_integers_never_convert(value: Any) -> None:
    assert message(quantity(), value) == "Must be an integer."


@pytest.mark.parametrize(
    "value", [10_001, 10**30, Decimal("1E+30"), Decimal("1E+999999"), int("9" * 4000)]
)
def test_integers_too_large(value: Any) -> None:
    assert "less than or equal to 10000" in message(quantity(), value)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        Decimal("-0.0"),
        Decimal("0E+999999"),
        -(10**30),
        Decimal("-1E+30"),
        Decimal("-1E+999999"),
    ],
)
def test_integers_too_small(value: Any) -> None:
    assert "greater than or equal to 1" in message(quantity(), value)


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (0, "0"),
        (70, "70"),
        (Decimal("42.5"), "42.5"),
        (Decimal("42.50"), "42.5"),
        (Decimal("42.500"), "42.5"),
        (Decimal("42.5" + "0" * 900), "42.5"),
        (Decimal("0.01"), "0.01"),
        (Decimal("1E+2"), "100"),
        (Decimal("1.5E-1"), "0.15"),
        (Decimal("-0.0"), "0"),
        (Decimal("0E-999999"), "0"),
        (LARGEST, "9999999999.99"),
    ],
)
def test_money(value: int | Decimal, taken: str) -> None:
    found = money().run_validation(value)
    assert found == Decimal(taken)
    assert type(found) is Decimal
    assert not found.is_signed()


@pytest.mark.parametrize("value", ["42.5", "", True, False, [], {}, [1]])
def test_money_never_converts(value: Any) -> None:
    assert message(money(), value) == "Must be a number."


def test_money_refuses_null() -> None:
    assert message(money(), None) == "This field may not be null."


@pytest.mark.parametrize("value", ["42.505", "0.001", "1E-3", "42.5000000001"])
def test_money_refuses_a_third_decimal(value: str) -> None:
    assert "decimal places" in message(money(), Decimal(value))


@pytest.mark.parametrize("value", ["10000000000", "9999999999.990000001E+1", "1E+10", "1E+999999"])
def test_money_refuses_more_than_ten_digits_before_the_point(value: str) -> None:
    message(money(), Decimal(value))


@pytest.mark.parametrize("value", ["-0.01", "-1", "-1E+999999", "-1E-999999"])
def test_money_refuses_less_than_nothing(value: str) -> None:
    message(money(), Decimal(value))


def test_a_megabyte_of_zeros_is_quick() -> None:
    started = time.perf_counter()
    message(quantity(), Decimal("1." + "0" * 1_000_000 + "1"))
    money().run_validation(Decimal("1." + "0" * 1_000_000))
    assert message(money(), Decimal("1" * 1_000_000)) == "Has too many digits."
    assert time.perf_counter() - started < 5


@given(cents=st.integers(0, 10**12 - 1), zeros=st.integers(0, 40))
def test_money_takes_every_amount_of_cents(cents: int, zeros: int) -> None:
    number = Decimal(f"{cents // 100}.{cents % 100:02}" + "0" * zeros)
    assert money().run_validation(number) * 100 == cents


@given(number=st.decimals(allow_nan=False, allow_infinity=False))
def test_money_agrees_with_its_definition(number: Decimal) -> None:
    valid = (
        0 <= number <= LARGEST and number == number.quantize(Decimal("0.01"))
        if abs(number) < 10**11
        else False
    )
    if valid:
        assert money().run_validation(number) == number
    else:
        message(money(), number)


@pytest.mark.parametrize(
    ("written", "hour", "micros"),
    [
        ("2026-03-11", 0, 0),
        ("2026-03-11T22:00:00", 22, 0),
        ("2026-03-11t22:00:00.5z", 22, 500_000),
        ("2026-03-11 22:00:00.1234567Z", 22, 123_456),
        ("2026-03-11T23:30:00+01:30", 22, 0),
    ],
)
def test_a_moment_is_utc_unless_it_says_otherwise(written: str, hour: int, micros: int) -> None:
    expected = datetime(2026, 3, 11, hour, 0, 0, micros, tzinfo=UTC)
    assert QueryMoment().run_validation(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        *("2026-03-11T22:00:00+12:99", "2026-03-11T22:00:00-24:00", "2026-03-11T22:00:00+12:60"),
        *("2026-03-11T24:00:00Z", "2026-03-11T22:60:00Z", "2026-03-11T22:00:60Z"),
        *("2026-03-11T22:00:00+1200", "2026-03-11T22:00:00+12", "2026-03-11T22:00:00+12:00:30"),
    ],
)
def test_a_moment_that_no_clock_shows_is_refused(written: str) -> None:
    """RFC 3339, 5.6; a leap second is none that PostgreSQL could store."""
    assert message(QueryMoment(), written) == "Must be a time like 2026-03-11T22:00:00Z."
