"""A breaker as a pure state machine: a state, what happened, a clock; out comes the next state.

Half open, a few may call, each with a place that is leased. All probes must succeed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

__all__ = [
    "CLOSED",
    "HALF_OPEN",
    "OPEN",
    "BreakerPlace",
    "BreakerRule",
    "BreakerState",
    "CallOutcome",
    "Permit",
    "ask",
    "give_up",
    "phase",
    "report",
    "reset",
]

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half open"
_IDS_KEPT = 64  # of outcomes that were counted; a report has no more


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """When it opens, for how long, and what closes it. Seconds, numbers of calls.

    It opens when all three hold: `in_a_row` failures without a success, `at_least` outcomes, and
    `share` of the last `window` outcomes, or of those there are, are failures.
    """

    in_a_row: int = 5
    at_least: int = 5
    share: float = 0.5
    window: int = 20
    open_seconds: float = 30.0
    probes: int = 3
    place_seconds: float = 15.0


class BreakerPlace(msgspec.Struct, frozen=True):
    """A probe under way: who holds it, and until when."""

    holder: str
    until: float


class BreakerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`epoch` rises with every change of phase but that from open to half open.

    outcomes   the last ones, the newest last; True is a success
    opened_at  when it opened; None: closed
    places     probes under way; `passed`: probes that succeeded
    seen       ids of the outcomes counted last
    """

    epoch: int = 0
    outcomes: tuple[bool, ...] = ()
    opened_at: float | None = None
    places: tuple[BreakerPlace, ...] = ()
    passed: int = 0
    seen: tuple[str, ...] = ()


class Permit(msgspec.Struct, frozen=True):
    """One call that may be made; its outcome names the id and the epoch."""

    id: str
    epoch: int
    probe: bool = False


class CallOutcome(msgspec.Struct, frozen=True):
    """How a permitted call went. What says nothing of the other side is not reported."""

    id: str
    epoch: int
    success: bool


def phase(state: BreakerState, rule: BreakerRule, now: float) -> str:
    """CLOSED, OPEN or HALF_OPEN at a moment."""
    if state.opened_at is None:
        return CLOSED
    # A clock that was set back does not keep it open for longer than a new opening.
    return OPEN if state.opened_at <= now < state.opened_at + rule.open_seconds else HALF_OPEN


def ask(
    state: BreakerState, rule: BreakerRule, now: float, ids: Sequence[str]
) -> tuple[BreakerState, list[Permit]]:
    """Which of the calls may be made, the first ones first. Asking again gives no second place."""
    current = phase(state, rule, now)
    if current == OPEN:
        return state, []
    if current == CLOSED:
        return state, [Permit(id_, state.epoch) for id_ in ids]
    held = tuple(place for place in state.places if place.until > now)
    known = {place.holder for place in held}
    free = max(0, rule.probes - state.passed - len(held))
    fresh = [id_ for id_ in ids if id_ not in known][:free]
    places = held + tuple(BreakerPlace(id_, now + rule.place_seconds) for id_ in fresh)
    taken = known.union(fresh)
    return (
        msgspec.structs.replace(state, places=places),
        [Permit(id_, state.epoch, probe=True) for id_ in ids if id_ in taken],
    )


def report(
    state: BreakerState, rule: BreakerRule, now: float, outcomes: Sequence[CallOutcome]
) -> BreakerState:
    """What became of calls, in their order. An outcome that was counted, or belongs to a call from
    before the last change, changes nothing."""
    for outcome in outcomes:
        if outcome.epoch != state.epoch or outcome.id in state.seen:
            continue
        if state.opened_at is None:
            state = _count(state, rule, now, outcome)
        else:
            state = _probed(state, rule, now, outcome)
    return state


def give_up(state: BreakerState, ids: Sequence[str]) -> BreakerState:
    """Probes that were not made, or say nothing of the other side: their places are free."""
    places = tuple(place for place in state.places if place.holder not in ids)
    return msgspec.structs.replace(state, places=places)


def reset(state: BreakerState) -> BreakerState:
    """Closed by an operator."""
    return BreakerState(epoch=state.epoch + 1)


def _count(
    state: BreakerState, rule: BreakerRule, now: float, outcome: CallOutcome
) -> BreakerState:
    outcomes = (*state.outcomes, outcome.success)[-max(rule.window, rule.in_a_row) :]
    run = next(
        (number for number, success in enumerate(reversed(outcomes)) if success), len(outcomes)
    )
    window = outcomes[-rule.window :]
    failed = window.count(False)
    if (
        not outcome.success
        and run >= rule.in_a_row
        and len(window) >= rule.at_least
        and failed >= rule.share * len(window)
    ):
        return BreakerState(epoch=state.epoch + 1, opened_at=now)
    seen = (*state.seen, outcome.id)[-_IDS_KEPT:]
    return msgspec.structs.replace(state, outcomes=outcomes, seen=seen)


def _probed(
    state: BreakerState, rule: BreakerRule, now: float, outcome: CallOutcome
) -> BreakerState:
    mine = [place for place in state.places if place.holder == outcome.id and place.until > now]
    if not mine:
        return state  # its place was given to another
    if not outcome.success:
        return BreakerState(epoch=state.epoch + 1, opened_at=now)
    if state.passed + 1 >= rule.probes:
        return BreakerState(epoch=state.epoch + 1)
    return msgspec.structs.replace(
        state,
        passed=state.passed + 1,
        places=tuple(place for place in state.places if place not in mine),
        seen=(*state.seen, outcome.id)[-_IDS_KEPT:],
    )
