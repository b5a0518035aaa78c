"""One batch: claim lanes, read what is pending, send it, settle what Kafka acknowledged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db import transaction

from outbox import tracing
from outbox.conf import DRAIN, DrainPolicy
from outbox.database import planner
from outbox.dead_letters import refused as refused_letters
from outbox.drain.produce import Produced
from outbox.drain.report import record, report_claimed, report_sent
from outbox.drain.settle import send_and_settle
from outbox.drain.state import DrainState
from outbox.lanes import claim
from outbox.lanes import pending as lane_events
from outbox.lanes.pending import PendingEvent
from outbox.tracing import Step

__all__ = ["DrainBatch", "drain_batch"]


@dataclass(frozen=True, slots=True)
class DrainBatch:
    """What one batch did, and what that says of the next one."""

    settled: Sequence[PendingEvent]
    refused: int
    held: int
    error: str
    last: bool  # nothing else could be claimed; a later commit asks again
    much_more: bool
    sparse: bool  # few events, which emptied their lanes, and all of them were sent


def drain_batch(
    state: DrainState, policy: DrainPolicy = DRAIN, *, raise_floors: bool = True
) -> DrainBatch | None:
    """Claim, produce and settle one batch; None when no lane has anything to send.

    `raise_floors`: one thread of a process does so, on the connection that it keeps.
    """
    if raise_floors:
        state.floors.refresh(policy)
    with tracing.step("drain", tracing.PRODUCER) as step:
        batch = _drain_batch(state, policy, step)
        if batch is None:
            step.forget()
        return batch


def _drain_batch(state: DrainState, policy: DrainPolicy, step: Step) -> DrainBatch | None:
    with transaction.atomic():
        planner.plan_by_index()
        left_out = state.refused.paused()
        lanes = claim.claim_lanes(policy.lanes_per_claim, floors=state.floors, left_out=left_out)
        if not lanes:
            return None
        pending, held = _read(lanes, state, policy, left_out)
        report_claimed(step, lanes, pending)
        delivery, events = send_and_settle(pending, policy, refused_before=state.refused)
        beside = [event for event in events if event.beside_letters]
        if beside:
            refused_letters.resolve_published(beside)
        refused = [(pending[i], delivery.refused.get(i, "")) for i in delivery.alone]
        for_good = state.refused.remember(events, refused, policy)
        if for_good:
            refused_letters.give_up(for_good, attempts=policy.refusals)
    report_sent(step, events, delivery, refused)
    record(events, pending, delivery, policy, state)
    return _summary(lanes, pending, events, delivery, policy, held=held)


def _read(
    lanes: Sequence[int],
    state: DrainState,
    policy: DrainPolicy,
    left_out: Collection[tuple[str, str]],
) -> tuple[Sequence[PendingEvent], int]:
    """The pending events of the claimed lanes, and how many events are held behind letters."""

    def read() -> list[PendingEvent]:
        return lane_events.pending_events(
            lanes, limit=policy.batch_events, floors=state.floors, left_out=left_out
        )

    pending = read()
    if not any(event.beside_letters for event in pending):
        return pending, 0
    held, heads = refused_letters.hold_followers(lanes)
    found = read()
    pending = refused_letters.without_followers(found, heads)
    return pending, held + len(found) - len(pending)


def _summary(
    lanes: Sequence[int],
    pending: Sequence[PendingEvent],
    settled: Sequence[PendingEvent],
    delivery: Produced,
    policy: DrainPolicy,
    *,
    held: int,
) -> DrainBatch:
    everything = len(lanes) < policy.lanes_per_claim
    share = policy.batch_events // len(lanes)
    whole = everything and len(pending) <= share
    return DrainBatch(
        settled=settled,
        refused=len(delivery.alone),
        held=held,
        error=delivery.error,
        last=whole and delivery.complete and not held,
        much_more=not everything and len(settled) >= policy.much,
        sparse=(
            len(pending) < policy.few
            and max(Counter(event.lane for event in pending).values(), default=0) <= share
            and delivery.complete
            and not held
        ),
    )
