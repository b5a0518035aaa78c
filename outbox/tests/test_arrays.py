"""Array literals, read back by PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.database.arrays import array_literal, text_array_literal

pytestmark = pytest.mark.django_db


def read_back(cast: str, literal: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{cast}[]", (literal,))
        return cursor.fetchone()[0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
        | st.text(alphabet='"\\{},\n NUL', max_size=6)
        | st.just("NULL")
    )
)
def test_any_text(texts: list[str]) -> None:
    assert read_back("text", text_array_literal(texts)) == texts


@pytest.mark.parametrize("texts", [["a\0b"], ["a", "\0", "b"], ["\0"]])
def test_no_text_becomes_two(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        text_array_literal(texts)


@pytest.mark.parametrize(
    ("cast", "values"),
    [
        ("int", []),
        ("text", []),
        ("int", [1, -2, 3]),
        ("numeric", [Decimal("0.01"), Decimal("9999999999.99"), Decimal(70), Decimal("1E+2")]),
        ("uuid", [UUID(int=7), UUID(int=2**127)]),
    ],
)
def test_what_needs_no_quotes(cast: str, values: list[object]) -> None:
    assert read_back(cast, array_literal(values)) == values
