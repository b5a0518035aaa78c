"""The writer's transactions: numbers without gaps for each key, and an outcome that is so."""

from __future__ import annotations

import json

import pytest

from devtools.chaos.load import write
from devtools.chaos.outcome import WriteOutcome
from outbox.models import OutboxEvent

pytestmark = pytest.mark.django_db(transaction=True)


def stored() -> list[tuple[str, int]]:
    rows = OutboxEvent.objects.order_by("id")
    return [(row.key, json.loads(row.payload)["seq"]) for row in rows]


def test_numbers_of_a_key_follow_each_other_also_within_a_transaction() -> None:
    first = write(["b", "a", "b"], modes=["", "poison", ""])
    second = write(["a", "b"])
    assert first.outcome == second.outcome == WriteOutcome.COMMITTED
    assert [(event.key, event.seq) for event in first.events] == [("b", 1), ("a", 1), ("b", 2)]
    assert [event.mode for event in first.events] == ["", "poison", ""]
    assert stored() == [("b", 1), ("a", 1), ("b", 2), ("a", 2), ("b", 3)]
    assert first.written()[1].seq == 1


def test_what_is_rolled_back_draws_no_number() -> None:
    undone = write(["a"], commit=False)
    assert (undone.outcome, undone.error, len(undone.events)) == (WriteOutcome.ROLLED_BACK, "", 1)
    assert stored() == []
    write(["a"])
    assert stored() == [("a", 1)]
