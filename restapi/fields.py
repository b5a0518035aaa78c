"""Serializer fields that take a JSON type for what it is and never convert, and query parameters
that are written in one way, and once."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

from drf_spectacular.drainage import set_override
from rest_framework import serializers
from rest_framework.request import Request

__all__ = ["MoneyField", "QueryInteger", "QueryMoment", "QuerySerializer", "StrictInteger", "Text"]

_CENT = Decimal("0.01")
_INTEGER = re.compile(r"-?[0-9]+")
_HOUR_MINUTE = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    rf"(?:[Tt ]{_HOUR_MINUTE}:[0-9]{{2}}(?:\.[0-9]+)?(?:[Zz]|[+-]{_HOUR_MINUTE})?)?"
)


class Text(serializers.CharField):
    """A JSON string, kept as it is, not empty and not blank."""

    default_error_messages = {"invalid": "Must be a string."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not data.strip() and not self.allow_blank:
            self.fail("blank")
        return str(super().to_internal_value(data))


class StrictInteger(serializers.IntegerField):
    """A JSON number without a fraction, by value: 2 and 2.0, not a string, not a boolean."""

    default_error_messages = {"invalid": "Must be an integer."}

    def __init__(self, *, min_value: int, max_value: int, **kwargs: Any) -> None:
        super().__init__(min_value=min_value, max_value=max_value, **kwargs)
        self.bounds = min_value, max_value

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int | Decimal) or isinstance(data, bool):
            self.fail("invalid")
        if isinstance(data, Decimal) and data != data.to_integral_value():
            self.fail("invalid")
        lowest, highest = self.bounds
        # Before int(), which would write 1e999999 out.
        if data < lowest:
            self.fail("min_value", min_value=lowest)
        if data > highest:
            self.fail("max_value", max_value=highest)
        return int(data)


class QuerySerializer(serializers.Serializer[object]):
    """The query parameters of a list. Those that it knows are given at most once and are not empty;
    others are ignored."""

    @classmethod
    def of(cls, request: Request) -> Self:
        """Those of the request, valid. Raises ValidationError (400)."""
        given = request.query_params
        # Not the QueryDict itself: of that, Django REST framework takes "" for a missing parameter.
        query = cls(data=given.dict())
        twice = [str(name) for name in query.fields if len(given.getlist(str(name))) > 1]
        if twice:
            raise serializers.ValidationError({name: ["Must be given once."] for name in twice})
        query.is_valid(raise_exception=True)
        return query


class QueryInteger(serializers.IntegerField):
    """Digits of ASCII and nothing else: int() would also take 1_0, +5, 5.0 and other scripts."""

    def to_internal_value(self, data: Any) -> int:
        if not _INTEGER.fullmatch(str(data)):
            self.fail("invalid")
        return super().to_internal_value(data)


class QueryMoment(serializers.DateTimeField):
    """RFC 3339, a date alone being its midnight; UTC where no offset is given. ISO 8601 has more
    (weeks, days of the year, no separators), of which each Python takes something else."""

    default_error_messages = {"invalid": "Must be a time like 2026-03-11T22:00:00Z."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default_timezone=UTC, **kwargs)

    def to_internal_value(self, value: Any) -> datetime:
        if not _RFC_3339.fullmatch(str(value)):
            self.fail("invalid")
        return super().to_internal_value(str(value).upper())


class MoneyField(serializers.DecimalField):
    """A JSON number with at most two decimals by value: 42.50 and 42.500 are both 42.5."""

    default_error_messages = {
        "invalid": "Must be a number.",
        "max_string_length": "Has too many digits.",
    }

    def __init__(self, *, max_digits: int, min_value: Decimal | int, **kwargs: Any) -> None:
        super().__init__(max_digits=max_digits, decimal_places=2, min_value=min_value, **kwargs)
        largest = Decimal(10) ** (max_digits - 2) - _CENT
        bounds = {"minimum": float(min_value), "maximum": float(largest)}
        # In the API's document DRF's decimals are numbers only without COERCE_DECIMAL_TO_STRING.
        set_override(self, "field", {"type": "number", **bounds, "multipleOf": float(_CENT)})

    def to_internal_value(self, data: Any) -> Decimal:
        if not isinstance(data, int | Decimal) or isinstance(data, bool):
            self.fail("invalid")
        number = data if isinstance(data, Decimal) else Decimal(data)
        return super().to_internal_value(_without_trailing_zeros(number))


def _without_trailing_zeros(number: Decimal) -> Decimal:
    """Exact, unlike Decimal.normalize(), which rounds to the context's 28 digits."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # NaN and Infinity do not pass the parser
    if not any(digits):
        return Decimal(0)
    kept = len(digits)  # in one pass: a body may bring a million zeros
    while exponent < 0 and digits[kept - 1] == 0:
        kept, exponent = kept - 1, exponent + 1
    return Decimal((sign, digits[:kept], exponent))
