"""Effects of events: what the task of a handler does with the chunks it is sent (rules R8 to R13).

A chunk is applied in one transaction (outbox/applying.py); what fails is isolated, down to the
single event, which becomes a dead letter (outbox/isolation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import shared_task
from django.db import DatabaseError, InterfaceError, transaction

from outbox import broker, dead_letters, inbox, redrive, suspects, tracing
from outbox.applying import Effect, accepts, apply_chunks
from outbox.chunks import Chunk, TaskChunk, tell_chunks
from outbox.conf import BRIDGE
from outbox.failures import is_busy, is_transient
from outbox.isolation import Isolation, report_transient

__all__ = ["Effect", "apply_chunks", "effect_task", "run_chunks"]


def effect_task(*, name: str, handler: str, effect: Effect) -> Any:
    """The Celery task of a handler, one line in an app's tasks.py: it applies the chunks that the
    bridge sends and the dead letters that are due again; returns the number of events applied."""

    def apply(*, chunks: Sequence[TaskChunk] = (), letters: Sequence[redrive.Claim] = ()) -> int:
        with tracing.step(f"task {name}", tracing.CONSUMER, parent=broker.sent_by()) as step:
            step.tell({"messaging.consumer.group.name": handler})
            applied = run_chunks(handler=handler, chunks=chunks, effect=effect) if chunks else 0
            applied += redrive.run_letters(handler=handler, letters=letters, effect=effect)
            step.tell({"outbox.events_applied": applied})
            return applied

    return shared_task(name=name, time_limit=BRIDGE.task_time_limit)(apply)


def run_chunks(*, handler: str, chunks: Sequence[TaskChunk], effect: Effect) -> int:
    """What every handler's task calls: applies the chunks, returns the number of events applied.

    If the effect fails, each chunk is tried by itself, and what fails alone is isolated: the rest
    is applied, the failing event becomes a dead letter. What a database that is away or a
    position that stays busy prevents is left for the bridge to send again. Never raises: where a
    position has not moved, that says it all.
    """
    parsed = [Chunk.from_task(chunk) for chunk in chunks]
    tell_chunks(tracing.current_step(), parsed)
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
            report_transient(handler, error)
            return 0
        return Isolation(handler, effect).run(chunks[0], error)


def _run_again(handler: str, chunk: Chunk, effect: Effect) -> int:
    """A chunk that was sent before: says what it begins before it begins it, so that an event
    that ends its process, or never ends, is found (see outbox/suspects.py)."""
    isolation = Isolation(handler, effect)
    pace = suspects.Pace()
    try:
        while not isolation.stopped:
            with transaction.atomic():
                positions = inbox.lock_positions(
                    handler, [chunk.partition_key], wait=BRIDGE.busy_wait
                )
                if not accepts(handler, positions, chunk):
                    break
                piece, accused = suspects.begin(
                    handler, chunk, positions[chunk.partition_key], pace
                )
            if accused:
                tracing.current_step().fail("never_ended", dead_letters.NEVER_ENDED)
                isolation.park(piece, dead_letters.NEVER_ENDED)
            else:
                isolation.attempt(piece)
            if piece.next_offset >= chunk.next_offset:
                break
    except (DatabaseError, InterfaceError) as error:
        report_transient(handler, error)
    return isolation.applied
