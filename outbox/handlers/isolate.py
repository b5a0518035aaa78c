"""Finds the events of a chunk that fail, so that the rest is applied (guarantees.md#r11 and #r13)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog
from django.db import DatabaseError, InterfaceError, transaction

from outbox import conf, metrics, tracing
from outbox.conf import BRIDGE
from outbox.database.errors import describe, is_busy, is_timeout, is_transient
from outbox.dead_letters import letters
from outbox.dead_letters.letter import Letter
from outbox.envelope import correlation_fields, event_fields, to_column
from outbox.handlers import apply, pause
from outbox.handlers.apply import Effect
from outbox.handlers.foreign import Sieve
from outbox.inbox import positions as position_rows
from outbox.inbox import receipts
from outbox.inbox.chunk import Chunk
from outbox.inbox.positions import Tally
from outbox.models import InboxReceipt

__all__ = ["Isolation", "halves", "report_transient"]

log = structlog.get_logger("outbox.effects")


class Isolation:
    """Finds the events of one chunk that fail and parks them, while the rest is applied.

    It applies the left half first, each half in a transaction of its own that moves the position to its end.
    A transient error stops the work, and so does the end of the task's time.
    """

    def __init__(self, handler: str, effect: Effect, sieve: Sieve) -> None:
        self.applied = 0
        self.stopped = False
        self._handler = handler
        self._effect = effect
        self._sieve = sieve
        self._give_up = time.monotonic() + BRIDGE.effect_timeout

    def attempt(self, chunk: Chunk) -> None:
        """Apply a chunk, or those of its events that can be applied."""
        if time.monotonic() > self._give_up:
            self.stopped = True
            _record_failure(self._handler, chunk, "time limit reached; the rest is sent again")
        if self.stopped:
            return
        try:
            self.applied += apply.apply_chunks(
                handler=self._handler,
                chunks=[chunk],
                effect=self._effect,
                wait=BRIDGE.busy_wait,
                refused=self._sieve.refused,
                unknown=self._sieve.unknown,
            )
        except Exception as error:  # noqa: BLE001  (whatever an effect raises, the position stays)
            if is_transient(error):
                self._leave(chunk, error)
            elif self._refuses_more(chunk):
                self.attempt(chunk)
            elif not self.stopped:
                self.divide(chunk, error)

    def park(self, chunk: Chunk, error: str) -> None:
        """Make the only event of a chunk a dead letter."""
        try:
            tripped = _park(self._handler, chunk, error)
        except Exception as failure:  # noqa: BLE001  (what fails here is left for the bridge)
            self.stopped = True
            if is_transient(failure):
                report_transient(self._handler, failure)
            else:
                _report_failure(self._handler, chunk, failure)
            return
        if tripped:
            self.stopped = True
            with _without_database(self._handler, "pause_not_spread"):
                pause.spread_pauses()

    def divide(self, chunk: Chunk, error: Exception) -> None:
        """Isolate the failing events of a chunk that has failed as a whole."""
        if not chunk.events:
            self.stopped = True
            _report_failure(self._handler, chunk, error)
        elif len(chunk.events) == 1:
            tracing.record_error(error)
            self.park(chunk, describe(error))
        else:
            for half in halves(chunk):
                self.attempt(half)

    def _leave(self, chunk: Chunk, error: Exception) -> None:
        self.stopped = True
        report_transient(self._handler, error)
        if not is_timeout(error):
            with _without_database(self._handler, "start_not_forgotten"):
                position_rows.forget_start(self._handler, chunk.partition_key)

    def _refuses_more(self, chunk: Chunk) -> bool:
        try:
            return self._sieve.look([chunk])
        except (DatabaseError, InterfaceError) as unavailable:
            self._leave(chunk, unavailable)
            return False


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
    Returns whether the handler's circuit tripped. An event that has a receipt by now is not
    parked."""
    route = conf.route_named(handler)
    [(offset, event)] = chunk.events
    with transaction.atomic():
        positions = position_rows.lock_positions(
            handler, [chunk.partition_key], wait=BRIDGE.busy_wait, limited=True
        )
        if not apply.accepts(handler, positions, chunk):
            return False
        position = positions[chunk.partition_key]
        pending = {event.event_id: event} if offset >= position.next_offset else {}
        followers = apply.followers_of(handler, [chunk], pending, positions)
        new = receipts.insert_receipts(handler, pending, InboxReceipt.Outcome.PARKED)
        failed = 0
        if new and not followers:
            failed = 1
            letter = Letter(
                handler, event, chunk.topic_id, chunk.partition, offset, attempts=1, error=error
            )
            letters.park([letter], delay=letters.backoff(route, 1))
        elif new:
            apply.park_letters(handler, [chunk], new)
        position_rows.advance_positions(
            handler, [chunk], [Tally(0, failed=failed, parked=len(new))]
        )
        tripped = bool(failed) and pause.trip_if_broken(handler, chunk.partition_key)
    log.error(
        "event_parked",
        handler=handler,
        event_id=str(event.event_id),
        topic=chunk.topic,
        partition=chunk.partition,
        offset=offset,
        error=error,
        **event_fields(event.trace),
    )
    return tripped


def report_transient(handler: str, error: Exception) -> None:
    busy = is_busy(error)
    metrics.CHUNKS_REFUSED.labels(handler, "busy" if busy else "transient").inc()
    log.warning("chunk_busy" if busy else "chunk_left", handler=handler, error=describe(error))
    if not busy:  # another task holds the position, which is not a failure
        tracing.record_error(error)


def _report_failure(handler: str, chunk: Chunk, error: Exception) -> None:
    """Log that neither the effect nor the parking worked; the bridge sends the chunk again."""
    metrics.CHUNKS_FAILED.labels(handler).inc()
    tracing.record_error(error)
    log.exception(
        "chunk_failed",
        handler=handler,
        topic=chunk.topic,
        partition=chunk.partition,
        first_offset=chunk.first_offset,
        next_offset=chunk.next_offset,
        **correlation_fields(event.trace.correlation_id for _, event in chunk.events),
    )
    _record_failure(handler, chunk, describe(error))


def _record_failure(handler: str, chunk: Chunk, error: str) -> None:
    with _without_database(handler, "failure_not_recorded"):
        position_rows.record_failure(handler, chunk, to_column(error))


@contextmanager
def _without_database(handler: str, event: str) -> Iterator[None]:
    """What a database that is unavailable does not take is logged and left out."""
    try:
        yield
    except (DatabaseError, InterfaceError) as unavailable:
        log.warning(event, handler=handler, error=str(unavailable))
