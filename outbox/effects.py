"""Apply chunks: position, receipts and effect in one transaction (rules R8, R9, R11 and R12).

Nothing here trusts what the message queue did: a chunk that comes twice, late, out of turn, for
a topic that was made anew or while another copy of it runs changes nothing. What a chunk cannot
apply is isolated here, down to the single event, which becomes a dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from celery import shared_task
from django.db import DatabaseError, InterfaceError, transaction

from outbox import conf, control, dead_letters, inbox, metrics, redrive, suspects
from outbox.conf import BRIDGE
from outbox.dead_letters import Letter
from outbox.envelope import EventEnvelope, correlation_fields, to_column
from outbox.failures import (
    LOCK_NOT_AVAILABLE,
    describe,
    is_busy,
    is_timeout,
    is_transient,
)
from outbox.inbox import Chunk, PartitionKey, Position, Tally, TaskChunk
from outbox.models import DeadLetter, InboxReceipt

__all__ = ["LOCK_NOT_AVAILABLE", "Effect", "apply_chunks", "effect_task", "run_chunks"]

Effect = Callable[[Sequence[EventEnvelope]], None]
"""Writes what a handler makes of events, in the open transaction; called with at least one."""

log = structlog.get_logger("outbox.effects")


def effect_task(*, name: str, handler: str, effect: Effect) -> Any:
    """The Celery task of a handler, one line in an app's tasks.py: it applies the chunks that the
    bridge sends and the dead letters that are due again; returns the number of events applied."""

    def apply(*, chunks: Sequence[TaskChunk] = (), letters: Sequence[redrive.Claim] = ()) -> int:
        applied = run_chunks(handler=handler, chunks=chunks, effect=effect) if chunks else 0
        return applied + redrive.run_letters(handler=handler, letters=letters, effect=effect)

    return shared_task(name=name, time_limit=BRIDGE.task_time_limit)(apply)


def run_chunks(*, handler: str, chunks: Sequence[TaskChunk], effect: Effect) -> int:
    """What every handler's task calls: applies the chunks, returns the number of events applied.

    If the effect fails, each chunk is tried by itself, and what fails alone is isolated: the rest
    is applied, the failing event becomes a dead letter. What a database that is away or a
    position that stays busy prevents is left for the bridge to send again. Never raises: where a
    position has not moved, that says it all.
    """
    parsed = [Chunk.from_task(chunk) for chunk in chunks]
    fresh = [chunk for chunk in parsed if not chunk.attempt]
    applied = _run(handler, fresh, effect) if fresh else 0
    for chunk in parsed:
        if chunk.attempt:
            applied += _run_again(handler, chunk, effect)
    return applied


def _run(handler: str, chunks: Sequence[Chunk], effect: Effect, *, wait: float = 0.0) -> int:
    try:
        return apply_chunks(handler=handler, chunks=chunks, effect=effect, wait=wait)
    except Exception as error:  # noqa: BLE001  (whatever an effect raises, the position stays)
        alone = BRIDGE.busy_wait if is_busy(error) else wait
        if alone > wait or (len(chunks) > 1 and not is_transient(error)):
            return sum(_run(handler, [chunk], effect, wait=alone) for chunk in chunks)
        if is_transient(error):
            _report_transient(handler, error)
            return 0
        return _Isolation(handler, effect).run(chunks[0], error)


def _run_again(handler: str, chunk: Chunk, effect: Effect) -> int:
    """A chunk that was sent before: says what it begins before it begins it, so that an event
    that ends its process, or never ends, is found (see outbox/suspects.py)."""
    isolation = _Isolation(handler, effect)
    pace = suspects.Pace()
    try:
        while not isolation.stopped:
            with transaction.atomic():
                positions = inbox.lock_positions(
                    handler, [chunk.partition_key], wait=BRIDGE.busy_wait
                )
                if not _accepts(handler, positions, chunk):
                    break
                piece, accused = suspects.begin(
                    handler, chunk, positions[chunk.partition_key], pace
                )
            if accused:
                isolation.park(piece, dead_letters.NEVER_ENDED)
            else:
                isolation.attempt(piece)
            if piece.next_offset >= chunk.next_offset:
                break
    except (DatabaseError, InterfaceError) as error:
        _report_transient(handler, error)
    return isolation.applied


class _Isolation:
    """Finds the events of one chunk that fail and parks them, while the rest is applied.

    Left half first, each half in a transaction of its own that moves the position to its end.
    An error that passes stops the rest, and so does the end of the task's time.
    """

    def __init__(self, handler: str, effect: Effect) -> None:
        self.applied = 0
        self.stopped = False
        self._handler = handler
        self._effect = effect
        self._give_up = time.monotonic() + BRIDGE.effect_timeout

    def run(self, chunk: Chunk, error: Exception) -> int:
        """Isolate within a chunk that has failed as a whole; the number of events applied."""
        self._divide(chunk, error)
        return self.applied

    def attempt(self, chunk: Chunk) -> None:
        """Apply a chunk, or what of it can be applied."""
        if time.monotonic() > self._give_up:
            self._stop(chunk, "out of time, to be continued")
        if self.stopped:
            return
        try:
            self.applied += apply_chunks(
                handler=self._handler, chunks=[chunk], effect=self._effect, wait=BRIDGE.busy_wait
            )
        except Exception as error:  # noqa: BLE001  (whatever an effect raises, the position stays)
            if is_transient(error):
                self.stopped = True
                _report_transient(self._handler, error)
                if not is_timeout(error):
                    _forget_start(self._handler, chunk)
            else:
                self._divide(chunk, error)

    def park(self, chunk: Chunk, error: str) -> None:
        """Make the only event of a chunk a dead letter."""
        try:
            tripped = _park(self._handler, chunk, error)
        except Exception as failure:  # noqa: BLE001  (what fails here is left for the bridge)
            self.stopped = True
            if is_transient(failure):
                _report_transient(self._handler, failure)
            else:
                _report_failure(self._handler, chunk, failure)
            return
        if tripped:
            self.stopped = True
            _spread_pauses(self._handler)

    def _divide(self, chunk: Chunk, error: Exception) -> None:
        if not chunk.events:
            self.stopped = True
            _report_failure(self._handler, chunk, error)
        elif len(chunk.events) == 1:
            self.park(chunk, describe(error))
        else:
            for half in halves(chunk):
                self.attempt(half)

    def _stop(self, chunk: Chunk, word: str) -> None:
        self.stopped = True
        _record_failure(self._handler, chunk, word)


def halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
    """The left and the right half of a chunk of at least two events, in the order to apply them.

    The right one begins where the left one ends: before that the position refuses it.
    """
    middle = len(chunk.events) // 2
    border = chunk.events[middle][0]
    return (
        replace(chunk, next_offset=border, events=chunk.events[:middle]),
        replace(chunk, first_offset=border, events=chunk.events[middle:]),
    )


def _park(handler: str, chunk: Chunk, error: str) -> bool:
    """One transaction under the lock of the position: dead letter, receipt, position past it.
    Whether the handler's circuit tripped. An event that has a receipt by now is not parked."""
    route = conf.route_named(handler)
    [(offset, event)] = chunk.events
    with transaction.atomic():
        positions = inbox.lock_positions(
            handler, [chunk.partition_key], wait=BRIDGE.busy_wait, limited=True
        )
        if not _accepts(handler, positions, chunk):
            return False
        position = positions[chunk.partition_key]
        pending = {event.event_id: event} if offset >= position.next_offset else {}
        followers = _followers(handler, [chunk], pending, positions)
        new = inbox.insert_receipts(handler, pending, InboxReceipt.Outcome.PARKED)
        failed = 0
        if new and not followers:
            failed = 1
            letter = Letter(
                handler, event, chunk.topic_id, chunk.partition, offset, attempts=1, error=error
            )
            dead_letters.park([letter], delay=dead_letters.backoff(route, 1))
        elif new:
            _park_followers(handler, [chunk], new)
        inbox.advance_positions(handler, [chunk], [Tally(0, failed=failed, parked=len(new))])
        tripped = bool(failed) and control.trip_if_broken(handler, chunk.partition_key)
    log.error(
        "event_parked",
        handler=handler,
        event_id=str(event.event_id),
        topic=chunk.topic,
        partition=chunk.partition,
        offset=offset,
        error=error,
        correlation_id=event.trace.correlation_id,
    )
    return tripped


def _followers(
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


def _park_followers(handler: str, chunks: Iterable[Chunk], ids: set[UUID]) -> list[Letter]:
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
        accepted = [chunk for chunk in chunks if _accepts(handler, positions, chunk)]
        events = _not_yet_applied(accepted, positions)
        followers = _followers(handler, accepted, events, positions)
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
    return _park_followers(handler, chunks, new) if new else []


def _tallies(chunks: Sequence[Chunk], followers: set[UUID]) -> list[Tally]:
    if not followers:
        return [Tally(len(chunk.events)) for chunk in chunks]
    held = [sum(event.event_id in followers for _, event in chunk.events) for chunk in chunks]
    return [
        Tally(len(chunk.events) - count, parked=count)
        for chunk, count in zip(chunks, held, strict=True)
    ]


def _accepts(handler: str, positions: Mapping[PartitionKey, Position], chunk: Chunk) -> bool:
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


def _report_transient(handler: str, error: Exception) -> None:
    busy = is_busy(error)
    metrics.CHUNKS_REFUSED.labels(handler, "busy" if busy else "transient").inc()
    log.warning("chunk_busy" if busy else "chunk_left", handler=handler, error=describe(error))


def _report_failure(handler: str, chunk: Chunk, error: Exception) -> None:
    """Neither the effect nor the parking worked: the bridge sends the chunk again."""
    metrics.CHUNKS_FAILED.labels(handler).inc()
    log.exception(
        "chunk_failed",
        handler=handler,
        topic=chunk.topic,
        partition=chunk.partition,
        first_offset=chunk.first_offset,
        next_offset=chunk.next_offset,
    )
    _record_failure(handler, chunk, describe(error))


def _record_failure(handler: str, chunk: Chunk, error: str) -> None:
    try:
        inbox.record_failure(handler, chunk, to_column(error))
    except (DatabaseError, InterfaceError) as unavailable:
        log.warning("failure_not_recorded", handler=handler, error=str(unavailable))


def _forget_start(handler: str, chunk: Chunk) -> None:
    try:
        inbox.forget_start(handler, chunk.partition_key)
    except (DatabaseError, InterfaceError) as unavailable:
        log.warning("start_not_forgotten", handler=handler, error=str(unavailable))


def _spread_pauses(handler: str) -> None:
    try:
        control.spread_pauses()
    except (DatabaseError, InterfaceError) as unavailable:
        log.warning("pause_not_spread", handler=handler, error=str(unavailable))
