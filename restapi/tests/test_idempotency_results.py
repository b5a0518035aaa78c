"""What a batch writes: what was made ahead, and nothing for what cannot be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from outbox.database.arrays import array_literal
from outbox.database.round_trips import Change, RoundTrip, Steps, run, send
from outbox.database.unit_of_work import unit_of_work
from restapi.answers import Answer
from restapi.idempotency import (
    IdempotencyKey,
    Keyed,
    NotDone,
    once,
    perform_once,
)
from restapi.models import IdempotencyRow
from restapi.tests.keyed_things import REPLAYED, key


class Drafts:
    """Squares, as an event loop has them made: while the keys are looked up."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def write(self, numbers: Sequence[int]) -> Change[int]:
        self.asked.append(list(numbers))
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        return Change([number * number for number in numbers])

    def answer(self, number: int, square: int) -> tuple[int, dict[str, Any]]:
        return 201, {"number": number, "square": square}

    def perform(self, *requests: tuple[int, IdempotencyKey | None]) -> Sequence[Answer]:
        keyed = [Keyed(number, key) for number, key in requests]
        steps = once(keyed, write=self.write, answer=self.answer)
        with unit_of_work():
            claim = next(steps)
            assert claim.meanwhile is not None
            claim.meanwhile()
            with pytest.raises(StopIteration) as end:
                steps.send(send(claim))
            change: Change[Answer] = end.value.value
            send(change.trip)
        return change.results


@pytest.mark.django_db(transaction=True)
def test_what_was_made_ahead_is_what_is_written() -> None:
    drafts = Drafts()
    answers = drafts.perform((1, key("a")), (2, None), (3, key("b")))
    assert drafts.asked == [[1, 2, 3]]
    assert [answer.body for answer in answers] == [
        b'{"number":%d,"square":%d}' % (n, n * n) for n in (1, 2, 3)
    ]


@pytest.mark.django_db(transaction=True)
def test_what_was_made_ahead_is_dropped_if_a_key_turns_out_to_be_used() -> None:
    drafts = Drafts()
    [first] = drafts.perform((1, key("a")))
    again, second, same = drafts.perform((1, key("a")), (2, key("b")), (2, key("b")))
    assert drafts.asked == [[1], [1, 2, 2], [2]]
    assert (again.body, again.headers) == (first.body, REPLAYED)
    assert (second.body, second.headers) == (b'{"number":2,"square":4}', ())
    assert (same.body, same.headers) == (second.body, REPLAYED)


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_made_ahead_is_refused_in_its_turn() -> None:
    """Not while the statements are under way, where nobody could tell what became of them."""
    drafts = Drafts()
    with pytest.raises(ValueError, match="negative"):
        drafts.perform((-1, key("a")))
    assert drafts.asked == [[-1], [-1]]
    assert IdempotencyRow.objects.count() == 0


def odd_ones(numbers: Sequence[int]) -> Steps[int | None]:
    """An even number cannot be done; which are even is asked of the database."""
    sql = "SELECT number FROM unnest(%s::int[]) AS number WHERE number %% 2 = 1"
    [rows] = yield RoundTrip([(sql, (array_literal(numbers),))])
    odd = {number for (number,) in rows}
    return Change([number if number in odd else None for number in numbers])


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_done_has_no_answer_and_leaves_its_key_free() -> None:
    asked = [(1, None), (2, None), (3, key("a")), (4, key("b")), (4, key("b")), (5, key("c"))]
    requests = [Keyed(number, its) for number, its in asked]
    for headers in ((), REPLAYED):
        with unit_of_work():
            answers = run(once(requests, write=odd_ones, answer=lambda _, odd: (200, odd)))
        shown = [answer and (answer.body, answer.headers) for answer in answers]
        assert shown == [(b"1", ()), None, (b"3", headers), None, None, (b"5", headers)]
        assert IdempotencyRow.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_on_djangos_connection_it_is_an_error_that_leaves_nothing() -> None:
    requests = [Keyed(1, key("a")), Keyed(2)]
    with pytest.raises(NotDone):
        perform_once(requests, write=odd_ones, answer=lambda _, odd: (200, odd))
    assert IdempotencyRow.objects.count() == 0
