"""Effects of events: what the task of a handler does with the chunks it is sent (guarantees.md#r8 to
#r13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog
from celery import shared_task
from django.db import DatabaseError, InterfaceError, transaction

from outbox import conf, metrics, tracing
from outbox.conf import BRIDGE
from outbox.database.errors import is_busy, is_transient
from outbox.dead_letters import redrive, unknown_type
from outbox.dead_letters.letters import NEVER_ENDED
from outbox.declaration import Route
from outbox.handlers.apply import Effect, accepts, apply_chunks
from outbox.handlers.crash_guard import PieceSize, next_piece
from outbox.handlers.foreign import Decode, Sieve, refuse_none
from outbox.handlers.isolate import Isolation, report_transient
from outbox.inbox import positions as position_rows
from outbox.inbox.chunk import Chunk, TaskChunk, describe_chunks
from outbox.process import task_queue

__all__ = ["Effect", "apply_chunks", "effect_task", "run_chunks"]

log = structlog.get_logger("outbox.effects")


def effect_task(*, name: str, handler: str, effect: Effect, decode: Decode) -> Any:
    """The Celery task of a handler, one line in an app's tasks.py: it applies the chunks that the
    bridge sends and the dead letters that are due again; returns the number of events applied.

    `decode`: reads a payload as the effect does, and raises where that fails. A foreign event that
    it does not take is parked without a doubt about the handler (see outbox/handlers/foreign.py).
    """
    metrics.show_effects(handler)

    def apply(*, chunks: Sequence[TaskChunk] = (), letters: Sequence[redrive.Claim] = ()) -> int:
        with tracing.step(f"task {name}", tracing.CONSUMER, parent=task_queue.sent_by()) as step:
            step.record({"messaging.consumer.group.name": handler})
            applied = 0
            if chunks:
                applied = run_chunks(handler=handler, chunks=chunks, effect=effect, decode=decode)
            applied += redrive.run_letters(handler=handler, letters=letters, effect=effect)
            step.record({"outbox.events_applied": applied})
            return applied

    return shared_task(name=name, time_limit=BRIDGE.task_time_limit)(apply)


def run_chunks(
    *,
    handler: str,
    chunks: Sequence[TaskChunk],
    effect: Effect,
    decode: Decode = refuse_none,
) -> int:
    """Apply the chunks; every handler's task calls this. Returns the number of events applied.

    What fails is isolated down to the single event, which becomes a dead letter. What a database that
    is unavailable or a position that stays busy prevents is left for the bridge to send again, and so
    is an event whose type this worker does not know yet. Never raises: a position that has not moved is
    the report."""
    parsed = [Chunk.from_task(chunk) for chunk in chunks]
    describe_chunks(tracing.current_step(), parsed)
    try:
        parsed, unknown = _sort_out(conf.route_named(handler), parsed)
    except (DatabaseError, InterfaceError) as unavailable:
        report_transient(handler, unavailable)
        return 0
    sieve = Sieve(decode, unknown)
    fresh = [chunk for chunk in parsed if not chunk.attempt]
    applied = _run(handler, fresh, effect, sieve) if fresh else 0
    for chunk in parsed:
        if chunk.attempt:
            applied += _run_again(handler, chunk, effect, sieve)
    return applied


def _sort_out(route: Route, chunks: Sequence[Chunk]) -> tuple[list[Chunk], dict[UUID, str]]:
    """The chunks without events that this handler skips, each cut before an event that must wait; and the
    events to park, with the errors of their letters.

    To run the effect on a type that this worker's release does not know would fail, or write a receipt and do
    nothing. Events that are cut off are not applied, so the bridge sends them again. Raises what the database raises.
    """
    found: list[Chunk] = []
    parks: dict[UUID, str] = {}
    for chunk in chunks:
        run = unknown_type.sort_out(route, chunk.events)
        parks.update(run.parks)
        if run.waits is None:
            found.append(replace(chunk, events=tuple(run.events)))
            continue
        offset, event = run.waits
        metrics.CHUNKS_REFUSED.labels(route.handler, "unknown type").inc()
        log.error(
            "unknown_type_waits",
            handler=route.handler,
            type=event.type,
            release=conf.release(),
            topic=chunk.topic,
            partition=chunk.partition,
            offset=offset,
        )
        if offset > chunk.first_offset:
            found.append(replace(chunk, next_offset=offset, events=tuple(run.events)))
    return found, parks


def _run(
    handler: str, chunks: Sequence[Chunk], effect: Effect, sieve: Sieve, *, wait: float = 0.0
) -> int:
    try:
        return apply_chunks(
            handler=handler,
            chunks=chunks,
            effect=effect,
            wait=wait,
            refused=sieve.refused,
            unknown=sieve.unknown,
        )
    except Exception as error:  # noqa: BLE001  (whatever an effect raises, the position stays)
        passing = is_transient(error)
        if not passing:
            try:
                found = sieve.look(chunks)
            except (DatabaseError, InterfaceError) as unavailable:
                report_transient(handler, unavailable)
                return 0
            if found:
                return _run(handler, chunks, effect, sieve, wait=wait)
        alone = BRIDGE.busy_wait if is_busy(error) else wait
        if alone > wait or (len(chunks) > 1 and not passing):
            return sum(_run(handler, [chunk], effect, sieve, wait=alone) for chunk in chunks)
        if passing:
            report_transient(handler, error)
            return 0
        isolation = Isolation(handler, effect, sieve)
        isolation.divide(chunks[0], error)
        return isolation.applied


def _run_again(handler: str, chunk: Chunk, effect: Effect, sieve: Sieve) -> int:
    """Apply a chunk that was sent before. It writes a note before each piece that it begins, so that an event
    that ends its process, or never ends, can be found (see outbox/handlers/crash_guard.py)."""
    isolation = Isolation(handler, effect, sieve)
    pieces = PieceSize()
    try:
        while not isolation.stopped:
            with transaction.atomic():
                positions = position_rows.lock_positions(
                    handler, [chunk.partition_key], wait=BRIDGE.busy_wait
                )
                if not accepts(handler, positions, chunk):
                    break
                piece, accused = next_piece(handler, chunk, positions[chunk.partition_key], pieces)
            if accused:
                tracing.current_step().fail("never_ended", NEVER_ENDED)
                isolation.park(piece, NEVER_ENDED)
            else:
                isolation.attempt(piece)
            if piece.next_offset >= chunk.next_offset:
                break
    except (DatabaseError, InterfaceError) as error:
        report_transient(handler, error)
    return isolation.applied
