"""Repair: events that the audit found missing become dead letters that are due at once, so the redrive
applies them in the order of their key (guarantees.md#r12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import transaction

from outbox.audit import compare
from outbox.audit.compare import Finding, MissingReason
from outbox.database.ask import rows_of
from outbox.database.planner import limit_lock_waits
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters.letter import Letter
from outbox.declaration import Route
from outbox.envelope import EventEnvelope, TraceContext, correlation_fields, rfc3339
from outbox.inbox import receipts
from outbox.inbox.positions import (
    EFFECT_WAIT,
    Position,
    lock_positions,
    move_positions,
    note_letters,
)
from outbox.kafka import admin
from outbox.kafka.admin import TopicState
from outbox.lanes.lock import lock_all_lanes
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent
from outbox.topics import PartitionKey

__all__ = ["Repaired", "repair"]

log = structlog.get_logger("outbox.repair")

REPAIRABLE = frozenset({MissingReason.PASSED, MissingReason.GONE})


@dataclass(slots=True)
class Repaired:
    """The numbers of a repair: events handed to the redrive, events left out because later events of their key
    are applied or parked, events left out because their topic was recreated, and positions moved."""

    handed_over: int = 0
    out_of_order: int = 0
    other_log: int = 0
    positions_moved: int = 0


def repair(route: Route, logs: Mapping[str, TopicState], *, out_of_order: bool = False) -> Repaired:
    """Hand all events that the handler lacks to the redrive, a page at a time.

    Raises OperationalError if an effect holds a position, or a drain a lane, for too long, and
    KafkaUnavailable. Events that were handed over stay so, and the repair can be run again.
    """
    done = Repaired()
    logs = _read_again_without_drains(route, logs)
    for page in compare.pages(route, logs):
        done.other_log += sum(each.reason is MissingReason.OTHER_LOG for each in page)
        missing = [each for each in page if each.reason in REPAIRABLE]
        if missing:
            _repair_page(route, missing, done, out_of_order=out_of_order)
    state = logs.get(route.topic.name)
    if state and not done.out_of_order:
        done.positions_moved = _skip_what_is_gone(route, state) + _back_to_the_end(route, state)
    return done


def _repair_page(
    route: Route, missing: Sequence[Finding], done: Repaired, *, out_of_order: bool
) -> None:
    partitions = {(each.topic, each.partition) for each in missing if each.partition is not None}
    with transaction.atomic():
        positions = lock_positions(route.handler, partitions, wait=EFFECT_WAIT)
        overtaken = set() if out_of_order or not route.ordered else _overtaken(route, missing)
        wanted = [
            each
            for each in missing
            if each.event_id not in overtaken and _still_missing(each, positions)
        ]
        letters = _letters(route, wanted, positions)
        if letters:
            letter_rows.park(letters)
            note_letters(route.handler, {letter.place[:2] for letter in letters})
    done.handed_over += len(letters)
    done.out_of_order += len(overtaken)
    log.warning(
        "repaired",
        handler=route.handler,
        events=len(letters),
        out_of_order=len(overtaken),
        **correlation_fields(letter.event.trace.correlation_id for letter in letters),
    )


def _letters(
    route: Route, wanted: Sequence[Finding], positions: Mapping[PartitionKey, Position]
) -> list[Letter]:
    """Write receipts for events that have none, and return these as letters: due at once, or waiting behind an
    open letter of their key, which may be one of these."""
    events = _envelopes(wanted)
    new = receipts.insert_receipts(route.handler, events, InboxReceipt.Outcome.PARKED)
    found = [
        (each, (each.topic, each.partition, each.key))
        for each in wanted
        if each.partition is not None and each.event_id in new
    ]
    behind = letter_rows.parked_keys(route.handler, [place for _, place in found])
    letters = []
    for each, place in found:
        waits = route.ordered and place in behind
        behind.add(place)
        letters.append(
            Letter(
                handler=route.handler,
                event=events[each.event_id],
                topic_id=positions[place[:2]].topic_id,
                partition=each.partition,
                offset=each.offset,
                state=DeadLetter.State.PARKED if waits else DeadLetter.State.RETRYING,
                error=f"Found by the audit: {each.reason}.",
            )
        )
    return letters


def _still_missing(each: Finding, positions: Mapping[PartitionKey, Position]) -> bool:
    """Whether the event still needs a repair; if a replay has moved the position back, the bridge sends it."""
    if each.partition is None or each.offset is None:
        return False
    position = positions[each.topic, each.partition]
    return each.reason is MissingReason.GONE or each.offset < position.next_offset


def _overtaken(route: Route, missing: Sequence[Finding]) -> set[UUID]:
    """Which of these have a later event of their key that the handler has applied or parked."""
    rows = rows_of(
        """
        SELECT missing.event_id
        FROM unnest(%s::uuid[], %s::bigint[], %s::text[]) AS missing (event_id, id, key)
        WHERE EXISTS (
            SELECT FROM event_outbox later
            JOIN inbox_receipt receipt
              ON receipt.event_id = later.event_id AND receipt.handler = %s
            WHERE later.id > missing.id AND later.topic = %s AND later.key = missing.key
              AND receipt.outcome <> %s
        )
        """,
        (
            [each.event_id for each in missing],
            [each.outbox_id for each in missing],
            [each.key for each in missing],
            route.handler,
            route.topic.name,
            InboxReceipt.Outcome.DISCARDED,
        ),
    )
    return {row[0] for row in rows}


def _envelopes(findings: Sequence[Finding]) -> dict[UUID, EventEnvelope]:
    rows = OutboxEvent.objects.filter(id__in=[each.outbox_id for each in findings])
    return {
        row.event_id: EventEnvelope(
            event_id=row.event_id,
            type=row.type,
            topic=row.topic,
            key=row.key,
            source=row.source,
            time=rfc3339(row.created_at),
            payload=row.payload,
            trace=TraceContext(row.traceparent, row.correlation_id),
        )
        for row in rows.order_by("id")
    }


def _skip_what_is_gone(route: Route, state: TopicState) -> int:
    """Move positions that lie before the start of the log to its start; the events in between are handed over.
    The bridge follows. Without this it would ask for the lost offsets for ever."""
    with transaction.atomic():
        limit_lock_waits(EFFECT_WAIT)
        return move_positions(
            route.handler,
            route.topic.name,
            state.earliest,
            where='topic_id = %s AND next_offset < target."offset"',
            parameters=(state.topic_id,),
        )


# -- a log that has lost its end -------------------------------------------------------------------


def _read_again_without_drains(
    route: Route, logs: Mapping[str, TopicState]
) -> Mapping[str, TopicState]:
    """If a position lies beyond the end of the log: the same with the route's log as it is while
    no drain works, so that all that it holds by then is settled and seen by the audit."""
    topic = route.topic.name
    if topic not in logs or not _beyond(route, logs[topic]):
        return logs
    with transaction.atomic():
        lock_all_lanes()
        return {**logs, **admin.topic_states([topic])}


def _back_to_the_end(route: Route, state: TopicState) -> int:
    """Put positions beyond the end of the log where it ended when the repair began. Asked once more
    under their lock, where they cannot move: a handler may be further by now than the end was then."""
    beyond = _beyond(route, state)
    if not beyond:
        return 0
    topic = route.topic.name
    with transaction.atomic():
        positions = lock_positions(
            route.handler, [(topic, number) for number in beyond], wait=EFFECT_WAIT
        )
        rows_of("SELECT set_config('idle_in_transaction_session_timeout', '60s', true)")
        now = admin.topic_states([topic])[topic]
        ends = {
            position.partition: state.latest[position.partition]
            for position in positions.values()
            if position.topic_id == now.topic_id
            and position.next_offset > now.latest[position.partition]
        }
        return move_positions(route.handler, topic, ends)


def _beyond(route: Route, state: TopicState) -> list[int]:
    """Partitions whose position lies beyond the end of the log, without a lock."""
    rows = BridgePosition.objects.filter(
        handler=route.handler, topic=route.topic.name, topic_id=state.topic_id
    ).values_list("partition", "next_offset")
    return [number for number, next_ in rows if next_ > state.latest.get(number, next_)]
