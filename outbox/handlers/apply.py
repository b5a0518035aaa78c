"""One transaction for chunks: position, receipts and effect (guarantees.md#r8 and #r9).

Nothing here relies on the message queue: a chunk that comes twice, late, out of turn, for a
recreated topic, or while another copy of it runs changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from django.db import transaction

from outbox import conf, metrics
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters import unknown_type
from outbox.dead_letters.letter import Letter
from outbox.envelope import EventEnvelope, correlation_fields
from outbox.handlers import foreign
from outbox.inbox import positions as position_rows
from outbox.inbox import receipts
from outbox.inbox.chunk import Chunk
from outbox.inbox.positions import Position, Tally
from outbox.models import DeadLetter, InboxReceipt
from outbox.topics import PartitionKey

__all__ = ["Effect", "accepts", "apply_chunks", "followers_of", "park_letters"]

Effect = Callable[[Sequence[EventEnvelope]], None]
"""Writes the effect of at least one event, in the open transaction."""

log = structlog.get_logger("outbox.effects")


def followers_of(
    handler: str,
    chunks: Iterable[Chunk],
    events: Mapping[UUID, EventEnvelope],
    positions: Mapping[PartitionKey, Position],
) -> set[UUID]:
    """The events that must wait behind an open dead letter of their key. Asks the database only if the
    locked position says that there are open letters."""
    asked = {
        event.event_id: (event.topic, chunk.partition, event.key)
        for chunk in chunks
        if positions[chunk.partition_key].letters_open
        for _, event in chunk.events
        if event.event_id in events
    }
    if not asked or not conf.route_named(handler).ordered:
        return set()
    parked = letter_rows.parked_keys(handler, asked.values())
    return {event_id for event_id, place in asked.items() if place in parked}


def park_letters(
    handler: str,
    chunks: Iterable[Chunk],
    ids: Collection[UUID],
    *,
    refused: Mapping[UUID, str] = {},
    followers: Collection[UUID] | None = None,
    unknown: Mapping[UUID, str] = {},
) -> None:
    """Write the letters of these events, each once, in the order of the log, one statement for all.

    `refused`: event id -> why it cannot be applied; such an event is dead at once, unless it is one
    of the `followers` (by default all are), which wait behind the head of their key. `unknown`: the
    same for events whose type is not known; they wait for a process that knows it.
    """
    letters: dict[UUID, Letter] = {}
    for chunk in chunks:
        for offset, event in chunk.events:
            event_id = event.event_id
            if event_id not in ids or event_id in letters:
                continue
            waits = followers is None or event_id in followers or event_id in unknown
            letters[event_id] = Letter(
                handler,
                event,
                chunk.topic_id,
                chunk.partition,
                offset,
                DeadLetter.State.PARKED if waits else DeadLetter.State.DEAD,
                attempts=0 if waits else 1,
                error=refused.get(event_id) or unknown.get(event_id, ""),
            )
    letter_rows.park(list(letters.values()), announce=True)


def apply_chunks(
    *,
    handler: str,
    chunks: Sequence[Chunk],
    effect: Effect,
    wait: float = 0.0,
    refused: Mapping[UUID, str] = {},
    unknown: Mapping[UUID, str] = {},
) -> int:
    """Apply all the chunks in one transaction. Raises what the database or the effect raises.

    wait     seconds to wait for a position that another transaction holds
    refused  foreign events that cannot be decoded -> the error; they are parked and counted separately
    unknown  events of this system whose type this process does not know -> the error; they are parked and
             count as no failure
    """
    with transaction.atomic():
        positions = position_rows.lock_positions(
            handler, (chunk.partition_key for chunk in chunks), wait=wait, limited=True
        )
        accepted = [chunk for chunk in chunks if accepts(handler, positions, chunk)]
        events = _not_yet_applied(accepted, positions)
        followers = followers_of(handler, accepted, events, positions)
        aside = _set_aside(handler, accepted, events, followers, refused=refused, unknown=unknown)
        due = [event_id for event_id in events if event_id not in aside.ids]
        new = receipts.insert_receipts(handler, due) if due else set()
        fresh = [events[event_id] for event_id in due if event_id in new]
        if fresh:
            effect(fresh)
        if accepted:
            position_rows.advance_positions(handler, accepted, _tallies(accepted, aside.ids))
    metrics.DUPLICATES.labels(handler).inc(len(events) - len(fresh) - aside.parked)
    _report_foreign(handler, aside.foreign, refused)
    unknown_type.report_parked(handler, aside.unknown)
    _report_applied(handler, fresh)
    return len(fresh)


@dataclass(frozen=True, slots=True)
class _Aside:
    """The events that are not applied now; `parked`, `foreign` and `unknown` had no receipt
    before."""

    ids: Collection[UUID] = ()
    parked: int = 0
    foreign: Sequence[EventEnvelope] = ()
    unknown: Sequence[EventEnvelope] = ()


def _set_aside(
    handler: str,
    chunks: Sequence[Chunk],
    events: Mapping[UUID, EventEnvelope],
    followers: set[UUID],
    *,
    refused: Mapping[UUID, str],
    unknown: Mapping[UUID, str],
) -> _Aside:
    """Park refused events, events of unknown types, and events that must wait behind a letter of their key
    (guarantees.md#r12).

    The receipts of the first two are inserted first: an event that had a receipt before gets no letter, so
    no event may wait behind it.
    """
    bad = {event_id for event_id in (*refused, *unknown) if event_id in events}
    if not followers and not bad:
        return _Aside()
    new_bad = receipts.insert_receipts(handler, bad, InboxReceipt.Outcome.PARKED) if bad else set()
    behind = followers
    if new_bad and conf.route_named(handler).ordered:
        behind = followers | foreign.waiting_behind(new_bad, chunks, events)
    others = behind - bad
    new = (
        receipts.insert_receipts(handler, others, InboxReceipt.Outcome.PARKED) if others else set()
    )
    if new or new_bad:
        park_letters(
            handler,
            chunks,
            new | new_bad,
            refused=refused,
            followers=behind,
            unknown=unknown,
        )
    parked = [event_id for event_id in events if event_id in new_bad]
    return _Aside(
        ids=behind | bad,
        parked=len(new) + len(new_bad),
        foreign=[events[event_id] for event_id in parked if event_id not in unknown],
        unknown=[events[event_id] for event_id in parked if event_id in unknown],
    )


def _tallies(chunks: Sequence[Chunk], aside: Collection[UUID]) -> list[Tally]:
    if not aside:
        return [Tally(len(chunk.events)) for chunk in chunks]
    held = [sum(event.event_id in aside for _, event in chunk.events) for chunk in chunks]
    return [Tally(len(chunk.events) - n, parked=n) for chunk, n in zip(chunks, held, strict=True)]


def accepts(handler: str, positions: Mapping[PartitionKey, Position], chunk: Chunk) -> bool:
    """Whether the locked position accepts this chunk."""
    reason = _refusal(positions.get(chunk.partition_key), chunk)
    if reason:
        metrics.CHUNKS_REFUSED.labels(handler, reason).inc()
        log.info(
            "chunk_refused",
            handler=handler,
            reason=reason,
            topic=chunk.topic,
            partition=chunk.partition,
            first_offset=chunk.first_offset,
            **correlation_fields(event.trace.correlation_id for _, event in chunk.events),
        )
    return not reason


def _refusal(position: Position | None, chunk: Chunk) -> str:
    if position is None:
        return "no position"
    if position.paused:
        return "paused"
    if position.topic_id != chunk.topic_id:
        return "topic made anew"
    if chunk.first_offset > position.next_offset:
        return "gap"
    if chunk.next_offset <= position.next_offset:
        return "already applied"
    return ""


def _not_yet_applied(
    chunks: Iterable[Chunk], positions: Mapping[PartitionKey, Position]
) -> dict[UUID, EventEnvelope]:
    """Events at or above the position, the first occurrence of each id, in order."""
    events: dict[UUID, EventEnvelope] = {}
    for chunk in chunks:
        position = positions[chunk.partition_key]
        for offset, event in chunk.events:
            if offset >= position.next_offset:
                events.setdefault(event.event_id, event)
    return events


def _report_foreign(
    handler: str, events: Sequence[EventEnvelope], refused: Mapping[UUID, str]
) -> None:
    metrics.FOREIGN.labels(handler).inc(len(events))
    if not events:
        return
    log.warning(
        "foreign_events_parked",
        handler=handler,
        topic=events[0].topic,
        events=len(events),
        error=refused[events[0].event_id],
        advice=f"manage.py dead_letters list --handler {handler} --error '{foreign.NOT_OURS}'",
        **correlation_fields(event.trace.correlation_id for event in events),
    )


def _report_applied(handler: str, events: Sequence[EventEnvelope]) -> None:
    metrics.EFFECTS_APPLIED.labels(handler).inc(len(events))
    if not events:
        return
    now = time.time()
    oldest = min((event.time for event in events if event.time), default="")
    age = max(0.0, now - _timestamp(oldest, default=now))
    metrics.COMMIT_TO_EFFECT.labels(handler).observe(age)
    log.info(
        "applied",
        handler=handler,
        events=len(events),
        **correlation_fields(event.trace.correlation_id for event in events),
    )


def _timestamp(text: str, *, default: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return default
