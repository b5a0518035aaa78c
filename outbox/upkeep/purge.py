"""Deleting what is done and old (guarantees.md#r16): outbox rows with their receipts, in small chunks.

This is read from the receipts on every run, so a late handler never loses an event. An event of a type
that this process does not know stays while a handler of its topic has not passed it, or has it
parked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction

from outbox import conf
from outbox.conf import DRAIN_HANDLER, Retention
from outbox.database import jobs
from outbox.database.ask import changed_by, row_of
from outbox.models import InboxReceipt

__all__ = ["Purged", "purge"]

CHUNK = 1000
RUN_SECONDS = 10.0
_RECEIPTS_MARK = "purge:receipts"


@dataclass(slots=True)
class Purged:
    """What one run deleted, what was old enough but is not done, and whether it came to the end."""

    events: int = 0
    receipts: int = 0
    dead_letters: int = 0
    kept: int = 0
    complete: bool = True


def purge(
    retention: Retention | None = None, *, seconds: float = RUN_SECONDS, chunk: int = CHUNK
) -> Purged:
    """Delete what may go, for at most about `seconds`; each chunk is a transaction of its own."""
    kept_for = retention or conf.retention()
    purged = Purged()
    give_up = time.monotonic() + seconds
    after: int | None = 0
    while after is not None and time.monotonic() < give_up:
        after = _purge_events(after, kept_for.outbox, chunk, purged)
    purged.complete = after is None
    _repeat(lambda: _purge_receipts(kept_for.receipts, chunk, purged), give_up, purged)
    _repeat(lambda: _purge_dead_letters(kept_for.dead_letters, chunk, purged), give_up, purged)
    if purged.complete:
        jobs.note_done("purge")
    return purged


def _repeat(step: Callable[[], bool], give_up: float, purged: Purged) -> None:
    """Until a step says that it was the last one, or time is up."""
    while step():
        if time.monotonic() > give_up:
            purged.complete = False
            return


_EVENTS = f"""
    WITH batch AS MATERIALIZED (
        SELECT id, event_id, topic, type, status, "partition", "offset",
               created_at < clock_timestamp() - make_interval(hours => %(hours)s) AS old,
               coalesce(published_at, created_at)
                   < clock_timestamp() - make_interval(hours => %(hours)s) AS sent_long_ago
        FROM event_outbox WHERE id > %(after)s ORDER BY id LIMIT %(chunk)s
    ), due AS (
        SELECT event.id, event.event_id
        FROM event_outbox event
        JOIN batch ON batch.id = event.id
        WHERE batch.sent_long_ago AND (event.status = 1 OR (event.status = 3 AND NOT EXISTS (
            SELECT FROM dead_letter letter
            WHERE letter.event_id = event.event_id AND letter.handler = '{DRAIN_HANDLER}'
              AND letter.state < 3
        ))) AND (event.status = 3 OR NOT EXISTS (
            SELECT FROM unnest(%(handlers)s::text[], %(topics)s::text[], %(types)s::text[])
                        AS route (handler, topic, type)
            LEFT JOIN bridge_position position
                   ON position.handler = route.handler AND position.topic = batch.topic
                  AND position."partition" = batch."partition"
            WHERE route.topic = batch.topic AND route.type = batch.type
              AND NOT coalesce(batch."offset" < position.start_offset, false)
              AND coalesce((SELECT outcome FROM inbox_receipt receipt
                            WHERE receipt.event_id = batch.event_id
                              AND receipt.handler = route.handler), {InboxReceipt.Outcome.PARKED.value})
                  = {InboxReceipt.Outcome.PARKED.value}
        ) AND NOT EXISTS (
            SELECT FROM unnest(%(all_handlers)s::text[], %(all_topics)s::text[])
                        AS route (handler, topic)
            LEFT JOIN bridge_position position
                   ON position.handler = route.handler AND position.topic = batch.topic
                  AND position."partition" = batch."partition"
            WHERE route.topic = batch.topic
              AND NOT EXISTS (
                  SELECT FROM unnest(%(known_topics)s::text[], %(known_types)s::text[])
                              AS known (topic, type)
                  WHERE known.topic = batch.topic AND known.type = batch.type)
              AND NOT coalesce(batch."offset" < position.start_offset, false)
              AND (batch."offset" >= position.next_offset OR EXISTS (
                  SELECT FROM inbox_receipt receipt
                  WHERE receipt.event_id = batch.event_id AND receipt.handler = route.handler
                    AND receipt.outcome = {InboxReceipt.Outcome.PARKED.value}))
        ))
        FOR UPDATE OF event SKIP LOCKED
    ), receipts AS (
        DELETE FROM inbox_receipt WHERE event_id IN (SELECT event_id FROM due) RETURNING 1
    ), events AS (
        DELETE FROM event_outbox WHERE id IN (SELECT id FROM due) RETURNING 1
    )
    SELECT (SELECT max(id) FROM batch), (SELECT count(*) FROM batch WHERE old),
           (SELECT count(*) FROM batch WHERE sent_long_ago),
           (SELECT count(*) FROM events), (SELECT count(*) FROM receipts)
"""


def _purge_events(after: int, hours: int, chunk: int, purged: Purged) -> int | None:
    """One chunk of rows after `after`. Returns the id from which to continue, or None when no
    old row follows.

    Rows are written in about the order of their ids, so that end is known by when they were
    written; but a row goes by when it was published, which may be much later."""
    subscriptions = [
        (route.handler, route.topic.name, type_)
        for route in conf.routes()
        for type_ in sorted(route.event_types)
    ]
    known = [
        (topic, type_)
        for topic in sorted({route.topic.name for route in conf.routes()})
        for type_ in sorted(conf.known_types(topic))
    ]
    last_id, old, due, events, receipts = row_of(
        _EVENTS,
        {
            "hours": hours,
            "after": after,
            "chunk": chunk,
            "handlers": [handler for handler, _, _ in subscriptions],
            "topics": [topic for _, topic, _ in subscriptions],
            "types": [type_ for _, _, type_ in subscriptions],
            "all_handlers": [route.handler for route in conf.routes()],
            "all_topics": [route.topic.name for route in conf.routes()],
            "known_topics": [topic for topic, _ in known],
            "known_types": [type_ for _, type_ in known],
        },
    )
    purged.events += events
    purged.receipts += receipts
    purged.kept += due - events
    return last_id if old else None


_RECEIPTS = f"""
    WITH batch AS MATERIALIZED (
        SELECT id, event_id, outcome,
               applied_at < clock_timestamp() - make_interval(hours => %s) AS old
        FROM inbox_receipt WHERE id > %s ORDER BY id LIMIT %s
    ), edge AS (
        SELECT coalesce(min(id) FILTER (WHERE NOT old) - 1, max(id)) AS last_id FROM batch
    ), gone AS (
        DELETE FROM inbox_receipt WHERE id IN (
            SELECT batch.id FROM batch, edge
            WHERE batch.id <= edge.last_id AND outcome <> {InboxReceipt.Outcome.PARKED.value}
              AND NOT EXISTS (
                  SELECT FROM event_outbox event WHERE event.event_id = batch.event_id)
        ) RETURNING 1
    )
    SELECT (SELECT last_id FROM edge), (SELECT count(*) FROM gone)
"""


def _purge_receipts(hours: int, chunk: int, purged: Purged) -> bool:
    """One chunk of receipts of messages that are not from our outbox; whether more may follow.

    A mark says how far: those that have a row are passed by for good, they go together with it.
    """
    mark = jobs.read_mark(_RECEIPTS_MARK)
    with transaction.atomic():
        last_id, receipts = row_of(_RECEIPTS, (hours, mark, chunk))
        if last_id is None or last_id <= mark:
            return False
        jobs.move_mark(_RECEIPTS_MARK, old=mark, new=last_id)
    purged.receipts += receipts
    return True


def _purge_dead_letters(hours: int, chunk: int, purged: Purged) -> bool:
    """One chunk of dead letters that were resolved long ago, with what was done with them; whether
    more may follow."""
    letters = changed_by(
        """
        WITH due AS (
            SELECT id FROM dead_letter
            WHERE state >= 3
              AND resolved_at < clock_timestamp() - make_interval(hours => %s)
            ORDER BY resolved_at LIMIT %s FOR UPDATE SKIP LOCKED
        ), actions AS (
            DELETE FROM dead_letter_action WHERE letter_id IN (SELECT id FROM due)
        )
        DELETE FROM dead_letter WHERE id IN (SELECT id FROM due)
        """,
        (hours, chunk),
    )
    purged.dead_letters += letters
    return letters == chunk
