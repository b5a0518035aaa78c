"""One transaction for chunks: position, receipts and effect (rules R8 and R9).

Nothing here trusts what the message queue did: a chunk that comes twice, late, out of turn, for
a topic that was made anew or while another copy of it runs changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from django.db import transaction

from outbox import conf, dead_letters, inbox, metrics
from outbox.chunks import Chunk
from outbox.dead_letters import Letter
from outbox.envelope import EventEnvelope, correlation_fields
from outbox.inbox import Position, Tally
from outbox.models import DeadLetter, InboxReceipt
from outbox.topics import PartitionKey

__all__ = ["Effect", "accepts", "apply_chunks", "followers_of", "park_followers"]

Effect = Callable[[Sequence[EventEnvelope]], None]
"""Writes what a handler makes of events, in the open transaction; called with at least one."""

log = structlog.get_logger("outbox.effects")


def followers_of(
    handler: str,
    chunks: Iterable[Chunk],
    events: Mapping[UUID, EventEnvelope],
    positions: Mapping[PartitionKey, Position],
) -> set[UUID]:
    """Which events must wait behind an open dead letter of their key; asks only where the locked
    position says that there are any."""
    asked = {
        event.event_id: (event.topic, chunk.partition, event.key)
        for chunk in chunks
        if positions[chunk.partition_key].letters_open
        for _, event in chunk.events
        if event.event_id in events
    }
    if not asked or not conf.route_named(handler).ordered:
        return set()
    parked = dead_letters.parked_keys(handler, asked.values())
    return {event_id for event_id, place in asked.items() if place in parked}


def park_followers(handler: str, chunks: Iterable[Chunk], ids: set[UUID]) -> list[Letter]:
    """Write the parked letters of these events, each once, in the order of the log."""
    letters: dict[UUID, Letter] = {}
    for chunk in chunks:
        for offset, event in chunk.events:
            if event.event_id in ids:
                letters.setdefault(
                    event.event_id,
                    Letter(
                        handler,
                        event,
                        chunk.topic_id,
                        chunk.partition,
                        offset,
                        DeadLetter.State.PARKED,
                    ),
                )
    dead_letters.park(list(letters.values()))
    return list(letters.values())


def apply_chunks(
    *, handler: str, chunks: Sequence[Chunk], effect: Effect, wait: float = 0.0
) -> int:
    """One transaction over all the chunks; raises what the database or the effect raises.

    `wait`: seconds to wait for a position that another transaction holds.
    """
    with transaction.atomic():
        positions = inbox.lock_positions(
            handler, (chunk.partition_key for chunk in chunks), wait=wait, limited=True
        )
        accepted = [chunk for chunk in chunks if accepts(handler, positions, chunk)]
        events = _not_yet_applied(accepted, positions)
        followers = followers_of(handler, accepted, events, positions)
        parked = _hold_back(handler, accepted, followers) if followers else []
        due = [event_id for event_id in events if event_id not in followers]
        new = inbox.insert_receipts(handler, due) if due else set()
        fresh = [events[event_id] for event_id in due if event_id in new]
        if fresh:
            effect(fresh)
        if accepted:
            inbox.advance_positions(handler, accepted, _tallies(accepted, followers))
    metrics.DUPLICATES.labels(handler).inc(len(events) - len(fresh) - len(parked))
    _report_applied(handler, fresh)
    return len(fresh)


def _hold_back(handler: str, chunks: Sequence[Chunk], followers: set[UUID]) -> list[Letter]:
    """Park the followers that have no receipt yet."""
    new = inbox.insert_receipts(handler, followers, InboxReceipt.Outcome.PARKED)
    return park_followers(handler, chunks, new) if new else []


def _tallies(chunks: Sequence[Chunk], followers: set[UUID]) -> list[Tally]:
    if not followers:
        return [Tally(len(chunk.events)) for chunk in chunks]
    held = [sum(event.event_id in followers for _, event in chunk.events) for chunk in chunks]
    return [
        Tally(len(chunk.events) - count, parked=count)
        for chunk, count in zip(chunks, held, strict=True)
    ]


def accepts(handler: str, positions: Mapping[PartitionKey, Position], chunk: Chunk) -> bool:
    """Whether the locked position lets this chunk in."""
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
