"""The checker's part about orders: the answers to buyers against each order's history and events.

No I/O. Each judge gives sentences about the damage it found; history.py counts them under the
invariant that they belong to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from devtools.chaos.outcome import WriteOutcome

__all__ = ["Answered", "LifeStep", "OrderLives", "forbidden", "missing", "out_of_turn"]

# Written down here a second time on purpose: a table that went wrong in orders/ must be seen.
LEGAL = {
    (None, "CREATED"),
    ("CREATED", "PAID"),
    ("CREATED", "CANCELLED"),
    ("PAID", "SHIPPED"),
    ("PAID", "CANCELLED"),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """One request of a buyer: the status it asked for (CREATED, PAID, …), the answer and when
    (seconds since the epoch)."""

    order_id: str
    to_status: str
    outcome: WriteOutcome
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class LifeStep:
    """One row of an order's history; ids follow the order's changes."""

    id: int
    order_id: str
    from_status: str | None
    to_status: str
    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLives:
    """All that is known of the scenario's orders; `statuses`: those stored, by id."""

    answered: Sequence[Answered] = ()
    steps: Sequence[LifeStep] = ()
    statuses: Mapping[str, str] = field(default_factory=dict)


def missing(
    lives: OrderLives,
    outbox: Mapping[str, int],
    lost_between: tuple[float, float] | None = None,
) -> Iterator[str]:
    """I1. A change that a buyer was promised is in the history, and each change has its events.

    `outbox`: ids of rows by the id of their event. What was promised between the moments of
    `lost_between` may be gone.
    """
    begin, end = lost_between or (0.0, -1.0)
    promised = Counter(
        (answer.order_id, answer.to_status)
        for answer in lives.answered
        if answer.outcome is WriteOutcome.COMMITTED and not begin <= answer.at <= end
    )
    steps = Counter((step.order_id, step.to_status) for step in lives.steps)
    for (order_id, status), count in promised.items():
        if count > steps[order_id, status]:
            yield (
                f"order {order_id}: {status} was promised {count} times,"
                f" its history has it {steps[order_id, status]} times"
            )
    for step in lives.steps:
        if lost := [event_id for event_id in step.event_ids if event_id not in outbox]:
            yield f"{_name(step)} was stored without its events {', '.join(lost)}"
        elif not step.event_ids:
            yield f"{_name(step)} was stored without an event"


def forbidden(lives: OrderLives, order_events: Mapping[str, str]) -> Iterator[str]:
    """I2. Nothing was changed for which every buyer got a refusal, and no event reports a change that
    there is not. `order_events`: the order by the id of its event."""
    answered = defaultdict(set)
    for answer in lives.answered:
        answered[answer.order_id, answer.to_status].add(answer.outcome)
    for step in lives.steps:
        if answered[step.order_id, step.to_status] == {WriteOutcome.NOT_STORED}:
            yield f"{_name(step)} is stored, and whoever asked for it was refused"
    told_of = {event_id for step in lives.steps for event_id in step.event_ids}
    for event_id, order_id in order_events.items():
        if event_id not in told_of:
            yield f"order {order_id}: its event {event_id} reports a change that does not exist"


def out_of_turn(lives: OrderLives, outbox: Mapping[str, int]) -> Iterator[str]:
    """I3. Each order's history is one chain of legal steps that ends in its status (so a race has
    one winner), and its events follow the steps."""
    chains = defaultdict(list)
    for step in sorted(lives.steps, key=lambda step: step.id):
        chains[step.order_id].append(step)
    for order_id, status in lives.statuses.items():
        last, behind = None, 0
        for step in chains[order_id]:
            if (step.from_status, step.to_status) not in LEGAL or step.from_status != last:
                yield f"{_name(step)} follows {last}"
            ids = [outbox[event_id] for event_id in step.event_ids if event_id in outbox]
            if ids and min(ids) <= behind:
                yield f"{_name(step)} has an event before that of the step before"
            last, behind = step.to_status, max([behind, *ids])
        if last != status:
            yield f"order {order_id} is {status}, its history ends in {last}"


def _name(step: LifeStep) -> str:
    return f"order {step.order_id}: {step.from_status} -> {step.to_status}"
