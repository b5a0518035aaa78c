"""Dead letters of the drain: messages that Kafka refuses, and the rows held behind them
(guarantees.md#r6). Each function runs in a transaction that holds the lock of the lane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog

from outbox import metrics
from outbox.conf import DRAIN_HANDLER
from outbox.database.ask import changed_by
from outbox.dead_letters import dlq_message
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters.letter import Letter
from outbox.envelope import event_fields, from_column
from outbox.lanes.floors import rewind
from outbox.lanes.pending import PendingEvent
from outbox.models import DeadLetter, OutboxEvent, OutboxLane
from outbox.topics import lane_of

__all__ = [
    "discard",
    "give_up",
    "hold_followers",
    "put_back",
    "resolve_published",
    "without_followers",
]

Heads = dict[tuple[str, str], str]
"""(topic, key) -> id of the event that Kafka refused and that the rest of the key waits for."""

log = structlog.get_logger("outbox.drain")


def give_up(refused: Sequence[tuple[PendingEvent, str]], *, attempts: int) -> None:
    """Turn rows that Kafka refused for good into dead letters. A message on a dead letter topic is
    sent without its payload instead, and if that is refused too, it is only logged."""
    for event, reason in refused:
        if dlq_message.is_dlq(event.topic):
            _shorten_or_drop(event, reason)
    ours = [each for each in refused if not dlq_message.is_dlq(each[0].topic)]
    if not ours:
        return
    _bury(ours, attempts)
    OutboxEvent.objects.filter(id__in=[event.id for event, _ in ours]).update(
        status=OutboxEvent.Status.DEAD
    )
    lanes = {event.lane for event, _ in ours}
    OutboxLane.objects.filter(lane__in=lanes, letters_open=False).update(letters_open=True)
    hold_followers(lanes)
    for event, reason in ours:
        metrics.DRAIN_FAILED.labels("dead").inc()
        log.error(
            "message_dead",
            event_id=event.event_id,
            topic=event.topic,
            key=event.key,
            error=reason,
            advice=f"manage.py dead_letters inspect --handler {DRAIN_HANDLER},"
            " then dead_letters replay ID or dead_letters discard ID",
            **event_fields(event.envelope.trace),
        )


def _bury(refused: Sequence[tuple[PendingEvent, str]], attempts: int) -> None:
    """Write a dead letter for each; a letter that is open after a replay becomes dead again."""
    letters = [
        Letter(
            DRAIN_HANDLER,
            event.envelope,
            state=DeadLetter.State.DEAD,
            attempts=attempts,
            error=reason,
        )
        for event, reason in refused
    ]
    letter_rows.park(letters)
    reasons = {event.envelope.event_id: reason for event, reason in refused}
    known = letter_rows.lock_letters(handler=DRAIN_HANDLER, event_id__in=list(reasons))
    letter_rows.bury(
        [replace(letter, error=reasons[letter.event.event_id]) for letter in known], whole=False
    )


def _shorten_or_drop(event: PendingEvent, reason: str) -> None:
    short = dlq_message.ids_only(dict(event.envelope.headers))
    row = OutboxEvent.objects.filter(id=event.id)
    if event.payload != short:
        row.update(payload=short)
        return
    row.update(status=OutboxEvent.Status.DEAD)
    log.error(
        "dead_letter_not_told",
        event_id=event.event_id,
        topic=event.topic,
        error=reason,
        **event_fields(event.envelope.trace),
    )


def hold_followers(lanes: Iterable[int]) -> tuple[int, Heads]:
    """Hold the rows behind a dead letter, which takes them out of the pending index; returns
    their number and the heads they wait for."""
    heads = _open_heads(set(lanes))
    if not heads:
        return 0, {}
    held = changed_by(
        """
        UPDATE event_outbox SET status = 2
        FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS head (event_id, topic, key)
        WHERE event_outbox.status = 0 AND event_outbox.lane = ANY(%s)
          AND event_outbox.topic = head.topic AND event_outbox.key = head.key
          AND event_outbox.event_id <> head.event_id
        """,
        (
            list(heads.values()),
            [topic for topic, _ in heads],
            [key for _, key in heads],
            list({lane_of(key) for _, key in heads}),
        ),
    )
    return held, heads


def without_followers(pending: Sequence[PendingEvent], heads: Heads) -> list[PendingEvent]:
    """These events without those that must wait behind a head. Writers do not lock the lane, so
    a row of the key may be committed after `hold_followers`; the next claim holds it."""
    return [event for event in pending if heads.get(event.place, event.event_id) == event.event_id]


def resolve_published(events: Sequence[PendingEvent]) -> None:
    """Events of lanes with open letters were published: the letters among them are resolved, and
    what was held behind them is published."""
    for letter in letter_rows.lock_letters(
        handler=DRAIN_HANDLER,
        event_id__in=[event.event_id for event in events],
        state=DeadLetter.State.RETRYING,
    ):
        letter_rows.resolve([letter.id], DeadLetter.State.APPLIED, by="drain")
        _release(letter)


def put_back(letter: Letter) -> None:
    """Make the refused row pending again, with its present payload; its followers stay held."""
    rewind({lane_of(letter.event.key)})
    OutboxEvent.objects.filter(
        event_id=letter.event.event_id, status=OutboxEvent.Status.DEAD
    ).update(status=OutboxEvent.Status.NEW)


def discard(letter: Letter) -> None:
    """Keep the refused row dead and release the rows held behind it. The letter is resolved
    already; a row that was made pending again is dead again."""
    OutboxEvent.objects.filter(
        event_id=letter.event.event_id, status=OutboxEvent.Status.NEW
    ).update(status=OutboxEvent.Status.DEAD)
    _release(letter)


def _release(letter: Letter) -> None:
    lane = lane_of(letter.event.key)
    rewind({lane})
    OutboxEvent.objects.filter(
        lane=lane,
        status=OutboxEvent.Status.HELD,
        topic=letter.event.topic,
        key=letter.event.key,
    ).update(status=OutboxEvent.Status.NEW)
    if not _open_heads({lane}):
        OutboxLane.objects.filter(lane=lane).update(letters_open=False)


def _open_heads(lanes: set[int]) -> Heads:
    rows = DeadLetter.objects.filter(
        handler=DRAIN_HANDLER, state__lt=DeadLetter.State.APPLIED
    ).values_list("event_id", "topic", "key")
    heads = {(topic, from_column(key)): str(event_id) for event_id, topic, key in rows}
    return {place: head for place, head in heads.items() if lane_of(place[1]) in lanes}
