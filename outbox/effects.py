"""Apply chunks: position, receipts and effect in one transaction (rules R8 and R9).

Nothing here trusts what the message queue did: a chunk that comes twice, late, out of turn, for
a topic that was made anew or while another copy of it runs changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from outbox import inbox, metrics
from outbox.conf import BRIDGE
from outbox.envelope import EventEnvelope
from outbox.inbox import Chunk, PartitionKey, Position, TaskChunk

__all__ = ["Effect", "apply_chunks", "run_chunks"]

Effect = Callable[[Sequence[EventEnvelope]], None]
"""Writes what a handler makes of events, in the open transaction; called with at least one."""

LOCK_NOT_AVAILABLE = "55P03"
TRANSACTION_TIMEOUT_SINCE = 170_000  # PostgreSQL 17

log = structlog.get_logger("outbox.effects")


def run_chunks(*, handler: str, chunks: Sequence[TaskChunk], effect: Effect) -> int:
    """What every handler's task calls: applies the chunks, returns the number of events applied.

    If the effect fails, or a position is held by another, each chunk is tried by itself, so that
    one partition does not hold up the others; the failing one is left for the bridge to send again. Never raises for a bad
    event or a database that is away: the position has not moved, and that says it all.
    """
    parsed = [Chunk.from_task(chunk) for chunk in chunks]
    try:
        return apply_chunks(handler=handler, chunks=parsed, effect=effect)
    except Exception as error:  # noqa: BLE001  (whatever an effect raises, the position stays)
        database = isinstance(error, OperationalError | InterfaceError)
        if len(parsed) > 1 and (_is_busy(error) or not database):
            return sum(
                run_chunks(handler=handler, chunks=[chunk], effect=effect) for chunk in chunks
            )
        if database:
            _report_database_error(handler, error)
        else:
            _report_failure(handler, parsed[0], error)
        return 0


def apply_chunks(*, handler: str, chunks: Sequence[Chunk], effect: Effect) -> int:
    """One transaction over all the chunks; raises what the database or the effect raises."""
    with transaction.atomic():
        _limit_transaction()
        positions = inbox.lock_positions(handler, (chunk.partition_key for chunk in chunks))
        accepted = [chunk for chunk in chunks if _accepts(handler, positions, chunk)]
        events = _not_yet_applied(accepted, positions)
        new = inbox.insert_receipts(handler, events) if events else set()
        fresh = [event for event_id, event in events.items() if event_id in new]
        if fresh:
            effect(fresh)
        if accepted:
            inbox.advance_positions(handler, accepted)
    metrics.DUPLICATES.labels(handler).inc(len(events) - len(fresh))
    _report_applied(handler, fresh)
    return len(fresh)


def _limit_transaction() -> None:
    version: int = connection.pg_version  # type: ignore[attr-defined]  # of the PostgreSQL backend
    whole = version >= TRANSACTION_TIMEOUT_SINCE
    setting = "transaction_timeout" if whole else "statement_timeout"
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config(%s, %s, true)", (setting, f"{BRIDGE.effect_timeout}s"))


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
    observe = metrics.COMMIT_TO_EFFECT.labels(handler).observe
    now = time.time()
    for event in events:
        if event.time:
            observe(max(0.0, now - _timestamp(event.time, default=now)))
    log.info(
        "applied",
        handler=handler,
        events=len(events),
        correlation_ids=sorted({event.trace.correlation_id for event in events} - {""}),
    )


def _timestamp(text: str, *, default: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return default


def _is_busy(error: Exception) -> bool:
    """Another transaction holds one of the positions."""
    return getattr(error.__cause__, "sqlstate", None) == LOCK_NOT_AVAILABLE


def _report_database_error(handler: str, error: Exception) -> None:
    busy = _is_busy(error)
    metrics.CHUNKS_REFUSED.labels(handler, "busy" if busy else "database").inc()
    log.warning("chunk_busy" if busy else "chunk_database_error", handler=handler, error=str(error))


def _report_failure(handler: str, chunk: Chunk, error: Exception) -> None:
    metrics.CHUNKS_FAILED.labels(handler).inc()
    log.exception(
        "chunk_failed",
        handler=handler,
        topic=chunk.topic,
        partition=chunk.partition,
        first_offset=chunk.first_offset,
        next_offset=chunk.next_offset,
    )
    try:
        inbox.record_failure(handler, chunk, f"{type(error).__name__}: {error}")
    except DatabaseError as unavailable:
        log.warning("failure_not_recorded", handler=handler, error=str(unavailable))
