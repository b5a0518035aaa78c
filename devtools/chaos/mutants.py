"""Guards broken one at a time, in the processes that have CHAOS_MUTANTS set.

Each function replaces one guard by what somebody would have written without knowing why it is
there. Which scenario shows the damage, and as which invariant, is declared in mutation.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any
from uuid import UUID

from django.db import connection

from devtools.chaos import feed_mutants
from devtools.chaos.notifications import mutants as notification_mutants
from devtools.probe import services as probe_services
from devtools.probe.events import decode_sequence_drawn
from outbox.bridge.dispatch import Dispatch
from outbox.conf import topics
from outbox.dead_letters import redrive
from outbox.envelope import EventEnvelope
from outbox.handlers import apply, isolate
from outbox.inbox import positions as position_rows
from outbox.inbox import receipts
from outbox.inbox.chunk import Chunk
from outbox.inbox.positions import Position
from outbox.kafka import producer
from outbox.lanes import claim
from outbox.lanes import pending as lane_events
from outbox.lanes.pending import PendingEvent
from outbox.models import OutboxEvent
from outbox.publish import nudge
from outbox.topics import PartitionKey

__all__ = ["BREAKS", "break_guard"]


def break_guard(name: str) -> None:
    """Break one guard in this process. Raises KeyError for a name there is not."""
    BREAKS[name]()


def _put(module: ModuleType, name: str, replacement: object) -> None:
    """Where the replacement takes anything and so has no signature to compare."""
    setattr(module, name, replacement)


def _nothing() -> None:
    """Broken elsewhere: in the settings, or by what the scenario does."""


def lock_rows() -> None:
    """The usual outbox: SKIP LOCKED on the rows, no lock on what orders them."""

    def any_lane(limit: int, **_: Any) -> list[int]:
        pending = OutboxEvent.objects.filter(
            status=OutboxEvent.Status.NEW, topic__in=[topic.name for topic in topics()]
        )
        free = pending.select_for_update(skip_locked=True).order_by("id")
        return sorted(set(free.values_list("lane", flat=True)[:2000]))

    read_all = lane_events.pending_events

    def only_free(lanes: Sequence[int], **options: Any) -> list[PendingEvent]:
        free = OutboxEvent.objects.filter(lane__in=lanes, status=OutboxEvent.Status.NEW)
        ids = set(free.select_for_update(skip_locked=True).values_list("id", flat=True))
        return [event for event in read_all(lanes, **options) if event.id in ids]

    claim.claim_lanes = any_lane
    lane_events.pending_events = only_free


def drain_descending() -> None:
    """The newest first."""
    read = lane_events.pending_events

    def descending(lanes: Sequence[int], **options: Any) -> list[PendingEvent]:
        return read(lanes, **options)[::-1]

    lane_events.pending_events = descending


def drop_nudges() -> None:
    """Nobody asks for a drain after a commit."""
    nudge.nudge = lambda: None


def gapless_off() -> None:
    """A failed message is stepped over: the producer lives on, and nothing is purged."""
    configured = producer._config

    def without_gapless() -> dict[str, Any]:
        return configured() | {"enable.gapless.guarantee": False}

    def forget() -> None:
        producer._own.producer = None

    producer._config = without_gapless
    producer.discard = forget


def position_check_off() -> None:
    """Whatever chunk comes is applied."""
    apply._refusal = lambda *_: ""

    def everything(
        chunks: Iterable[Chunk], positions: Mapping[PartitionKey, Position]
    ) -> dict[UUID, EventEnvelope]:
        return {event.event_id: event for chunk in chunks for _, event in chunk.events}

    apply._not_yet_applied = everything


class _WithRepetitions(dict[UUID, EventEnvelope]):
    """Events by id, which gives every occurrence when it is walked through."""

    def __init__(self, found: Sequence[tuple[UUID, EventEnvelope]]) -> None:
        super().__init__(found)
        self._found = found

    def __iter__(self) -> Iterator[UUID]:
        return iter([event_id for event_id, _ in self._found])

    def items(self) -> Any:
        return list(self._found)


def dedupe_in_chunk_off() -> None:
    """Receipts show what is new, but nobody checks whether a chunk has an event twice."""

    def with_repetitions(
        chunks: Iterable[Chunk], positions: Mapping[PartitionKey, Position]
    ) -> dict[UUID, EventEnvelope]:
        return _WithRepetitions(
            [
                (event.event_id, event)
                for chunk in chunks
                for offset, event in chunk.events
                if offset >= positions[chunk.partition_key].next_offset
            ]
        )

    apply._not_yet_applied = with_repetitions


def receipts_off() -> None:
    """The position alone decides."""
    insert = receipts.insert_receipts

    def believe(handler: str, event_ids: Iterable[UUID], *outcome: Any) -> set[UUID]:
        ids = list(event_ids)
        insert(handler, ids, *outcome)
        return set(ids)

    _put(receipts, "insert_receipts", believe)


def one_statement() -> None:
    """Effect and receipts in one statement, whose snapshot is older than what it waits for."""

    def none_inserted(handler: str, event_ids: Iterable[UUID], *outcome: Any) -> set[UUID]:
        return set(event_ids)

    _put(receipts, "insert_receipts", none_inserted)
    probe_services.append_entries = _append_with_receipts


def _append_with_receipts(envelopes: Sequence[EventEnvelope]) -> None:
    events = [decode_sequence_drawn(envelope.payload) for envelope in envelopes]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH arrived AS (
                SELECT * FROM unnest(%s::text[], %s::bigint[], %s::uuid[]) WITH ORDINALITY
                     AS arrived (key, seq, event_id, position)
            ), receipts AS (
                INSERT INTO inbox_receipt (event_id, handler)
                SELECT event_id, 'append_probe_entries' FROM arrived
                ON CONFLICT (event_id, handler) DO NOTHING
                RETURNING event_id
            ), waited AS (SELECT count(*) FROM receipts)
            INSERT INTO probe_log (key, seq, event_id)
            SELECT key, seq, event_id FROM arrived, waited
            WHERE NOT EXISTS (
                SELECT FROM inbox_receipt receipt
                WHERE receipt.event_id = arrived.event_id
                  AND receipt.handler = 'append_probe_entries')
            ORDER BY position
            """,
            (
                [event.key for event in events],
                [event.seq for event in events],
                [envelope.event_id for envelope in envelopes],
            ),
        )


def position_lock_off() -> None:
    """The position is read and not locked: two copies of a chunk run side by side."""
    read = position_rows.read_positions
    position_rows.lock_positions = lambda handler, keys, **_: read(handler, keys)


def confirm_at_send() -> None:
    """The bridge moves the position when the task is on its way, as an early offset commit does."""
    trigger = Dispatch.trigger

    def trigger_and_confirm(self: Dispatch, chunks: Sequence[Chunk]) -> str | None:
        sent = trigger(self, chunks)
        if sent is not None:
            position_rows.advance_positions(self._route.handler, chunks)
        return sent

    Dispatch.trigger = trigger_and_confirm  # type: ignore[method-assign]


def receipt_outcome_ignored() -> None:
    """Redrive marks the receipt and does not ask whether it was the one who did; nor does it look
    at its letters again, which finds the same case."""
    settle = receipts.settle_receipts

    def always_mine(handler: str, event_ids: Iterable[UUID], *outcome: Any) -> set[UUID]:
        ids = list(event_ids)
        settle(handler, ids, *outcome)
        return set(ids)

    _put(receipts, "settle_receipts", always_mine)
    redrive._still_open = list  # type: ignore[assignment]


def parked_keys_off() -> None:
    """Nobody waits behind the dead letter of its key."""
    apply.followers_of = lambda *_: set()


def right_half_first() -> None:
    """A failing chunk is divided, and its end is tried before its beginning."""
    divide = isolate.halves

    def reversed_halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
        left, right = divide(chunk)
        return right, left

    isolate.halves = reversed_halves


BREAKS: Mapping[str, Callable[[], None]] = {
    "row-locks": lock_rows,
    "drain-descending": drain_descending,
    "idle-timeout-off": _nothing,
    "nudges-dropped": drop_nudges,
    "gapless-off": gapless_off,
    "position-check-off": position_check_off,
    "chunk-dedupe-off": dedupe_in_chunk_off,
    "receipts-off": receipts_off,
    "one-statement": one_statement,
    "position-lock-off": position_lock_off,
    "confirm-at-send": confirm_at_send,
    "receipt-outcome-ignored": receipt_outcome_ignored,
    "parked-keys-off": parked_keys_off,
    "right-half-first": right_half_first,
    **feed_mutants.BREAKS,
    **notification_mutants.BREAKS,
}
