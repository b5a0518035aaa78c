"""The checker's part about orders against hand-made lives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devtools.chaos.order_life import (
    Answered,
    LifeStep,
    OrderLives,
    forbidden,
    missing,
    out_of_turn,
)
from devtools.chaos.outcome import WriteOutcome

ORDER = "order-1"
OUTBOX = {"created": 1, "simple": 2, "paid": 5, "shipped": 9}
EVENTS = dict.fromkeys(OUTBOX, ORDER)
STEPS = (
    LifeStep(1, ORDER, None, "CREATED", ("created", "simple")),
    LifeStep(2, ORDER, "CREATED", "PAID", ("paid",)),
    LifeStep(3, ORDER, "PAID", "SHIPPED", ("shipped",)),
)


def told(status: str, outcome: WriteOutcome = WriteOutcome.COMMITTED) -> Answered:
    return Answered(ORDER, status, outcome)


CLEAN = OrderLives(
    answered=(
        told("CREATED"),
        told("PAID"),
        told("PAID", WriteOutcome.NOT_STORED),
        told("CANCELLED", WriteOutcome.NOT_STORED),
        told("SHIPPED", WriteOutcome.UNKNOWN),
    ),
    steps=STEPS,
    statuses={ORDER: "SHIPPED"},
)


def damage(lives: OrderLives) -> dict[str, list[str]]:
    found = {
        "I1": list(missing(lives, OUTBOX)),
        "I2": list(forbidden(lives, EVENTS)),
        "I3": list(out_of_turn(lives, OUTBOX)),
    }
    return {name: sentences for name, sentences in found.items() if sentences}


def kinds(lives: OrderLives) -> dict[str, int]:
    return {name: len(sentences) for name, sentences in damage(lives).items()}


def test_a_clean_life_is_clean() -> None:
    assert damage(CLEAN) == {}


def test_an_unknown_change_is_either() -> None:
    without = replace(CLEAN, steps=STEPS[:2], statuses={ORDER: "PAID"})
    outbox = {name: row for name, row in OUTBOX.items() if name != "shipped"}
    assert not list(missing(without, outbox))
    assert not list(forbidden(without, dict.fromkeys(outbox, ORDER)))
    assert not list(out_of_turn(without, outbox))


def test_two_buyers_were_promised_one_change() -> None:
    assert kinds(replace(CLEAN, answered=(*CLEAN.answered, told("PAID")))) == {"I1": 1}


def test_a_promised_order_is_gone() -> None:
    gone = OrderLives(answered=(told("CREATED"),))
    assert [*missing(gone, {})] == [
        f"order {ORDER}: CREATED was promised 1 times, its history has it 0 times"
    ]


def test_a_change_lost_one_of_its_events() -> None:
    steps = (replace(STEPS[0], event_ids=("created", "lost")), *STEPS[1:])
    assert kinds(replace(CLEAN, steps=steps)) == {"I1": 1, "I2": 1}


def test_a_change_has_no_event() -> None:
    steps = (*STEPS[:2], replace(STEPS[2], event_ids=()))
    assert kinds(replace(CLEAN, steps=steps)) == {"I1": 1, "I2": 1}


def test_a_change_that_everybody_was_refused() -> None:
    answered = (told("CREATED"), told("PAID"), told("SHIPPED", WriteOutcome.NOT_STORED))
    assert kinds(replace(CLEAN, answered=answered)) == {"I2": 1}


def test_an_event_without_its_change() -> None:
    """Its order may be known or not."""
    events = EVENTS | {"other": "order-2"}
    assert len(list(forbidden(CLEAN, events))) == 1


@pytest.mark.parametrize("again", ["CREATED", "PAID"])
def test_a_race_has_two_winners(again: str) -> None:
    late = LifeStep(4, ORDER, again, "CANCELLED", ())
    lives = replace(CLEAN, steps=(*STEPS, late), statuses={ORDER: "CANCELLED"})
    assert len(list(out_of_turn(lives, OUTBOX))) == 1


def test_a_step_that_no_order_may_take() -> None:
    late = LifeStep(4, ORDER, "SHIPPED", "CANCELLED", ())
    lives = replace(CLEAN, steps=(*STEPS, late), statuses={ORDER: "CANCELLED"})
    assert len(list(out_of_turn(lives, OUTBOX))) == 1


def test_the_status_is_not_where_the_history_ends() -> None:
    assert kinds(replace(CLEAN, statuses={ORDER: "PAID"})) == {"I3": 1}


def test_an_event_before_that_of_the_step_before() -> None:
    swapped = OUTBOX | {"paid": 9, "shipped": 5}
    assert len(list(out_of_turn(CLEAN, swapped))) == 1
