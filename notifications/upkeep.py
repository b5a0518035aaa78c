"""What is done behind the notifications: figures are folded, what is old goes, in small pieces."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.conf import settings

from notifications.models import Channel
from outbox.database import jobs
from outbox.database.ask import row_of
from restapi.idempotency import KEPT_HOURS

__all__ = ["fold_figures", "prune"]

CHUNK = 500
FOLDED_AT_ONCE = 20_000
RUN_SECONDS = 10.0
SENDER_HOURS = 1  # since it was seen last

# One statement. Two that run at once read the same `through`; the rows are written only where that
# is still what they say, so one of them adds and the other does nothing.
_FOLD = """
    WITH folded AS (
        SELECT coalesce(min(through_seq), 0) AS through FROM notification_figures
    ), batch AS MATERIALIZED (
        SELECT seq, channel, status, previous, latency_ms FROM notification_status_log
        WHERE seq > (SELECT through FROM folded) ORDER BY seq LIMIT %s
    ), added AS (
        SELECT channel,
               count(*) FILTER (WHERE status = 'delivered') AS delivered,
               count(*) FILTER (WHERE status = 'failed')
               - count(*) FILTER (WHERE previous = 'failed') AS failed,
               coalesce(sum(latency_ms), 0) AS latency_ms
        FROM batch GROUP BY channel
    ), written AS (
        INSERT INTO notification_figures AS figures
            (channel, delivered, failed, latency_ms, through_seq)
        SELECT each.channel, coalesce(delivered, 0), coalesce(failed, 0), coalesce(latency_ms, 0),
               (SELECT max(seq) FROM batch)
        FROM unnest(%s::text[]) AS each (channel) LEFT JOIN added USING (channel)
        WHERE EXISTS (SELECT FROM batch)
        ORDER BY each.channel
        ON CONFLICT (channel) DO UPDATE
        SET delivered = figures.delivered + excluded.delivered,
            failed = figures.failed + excluded.failed,
            latency_ms = figures.latency_ms + excluded.latency_ms,
            through_seq = excluded.through_seq
        WHERE figures.through_seq = (SELECT through FROM folded)
        RETURNING 1
    )
    SELECT CASE WHEN EXISTS (SELECT FROM written) THEN (SELECT count(*) FROM batch) ELSE 0 END
"""


def fold_figures() -> int:
    """Add numbered changes of status to the figures of their channels; returns how many changes."""
    return int(row_of(_FOLD, (FOLDED_AT_ONCE, sorted(Channel.values)))[0])


# What an id from before these hours is below: a uuid7 holds its milliseconds in front.
_FIRST_ID = """
    (lpad(to_hex((extract(epoch FROM clock_timestamp() - make_interval(hours => %(hours)s))
                  * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
"""
# An old one may have ended only now: scheduled far ahead, or retried by an operator.
_NOTIFICATIONS = f"""
    WITH batch AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE id > %(after)s AND id < {_FIRST_ID} ORDER BY id LIMIT %(chunk)s
    ), due AS MATERIALIZED (
        SELECT done.id FROM notifications AS done JOIN batch USING (id)
        WHERE done.status IN ('delivered', 'failed', 'cancelled')
          AND done.updated_at < clock_timestamp() - make_interval(hours => %(hours)s)
        ORDER BY done.id FOR UPDATE OF done SKIP LOCKED
    ), tried AS (
        DELETE FROM notification_attempts WHERE notification_id IN (SELECT id FROM due)
    ), gone AS (
        DELETE FROM notifications WHERE id IN (SELECT id FROM due) RETURNING 1
    )
    SELECT (SELECT count(*) FROM batch), (SELECT max(id::text) FROM batch),
           (SELECT count(*) FROM gone)
"""
_BATCHES = f"""
    WITH batch AS MATERIALIZED (
        SELECT id FROM notification_batches
        WHERE id > %(after)s AND id < {_FIRST_ID} ORDER BY id LIMIT %(chunk)s
    ), gone AS (
        DELETE FROM notification_batches AS empty USING batch
        WHERE empty.id = batch.id
          AND NOT EXISTS (SELECT FROM notifications WHERE batch_id = empty.id)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM batch), (SELECT max(id::text) FROM batch),
           (SELECT count(*) FROM gone)
"""
# Whether a row is old is asked once more when it is deleted: a key may have been used again meanwhile.
_OLD = """
    WITH batch AS MATERIALIZED (
        SELECT id FROM {table} WHERE {at} < clock_timestamp() - make_interval(hours => %(hours)s)
        ORDER BY {at} LIMIT %(chunk)s FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {table} AS old USING batch WHERE old.id = batch.id RETURNING 1
    )
    SELECT (SELECT count(*) FROM batch), %(after)s::text, (SELECT count(*) FROM gone)
"""
_KEYS = _OLD.format(table="notification_keys", at="created_at")
# Processes that have ended. One that was only quiet is there again with its next claim.
_SENDERS = _OLD.format(table="notification_senders", at="seen_at")
_LEAST_ID = "00000000-0000-0000-0000-000000000000"


def prune(*, seconds: float = RUN_SECONDS, chunk: int = CHUNK) -> int:
    """Delete what is past its time, for at most about `seconds`; returns the rows. Each chunk is a
    transaction of its own, and one that somebody works with is left for the next run."""
    give_up = time.monotonic() + seconds
    kept = settings.NOTIFICATION_RETENTION_HOURS
    deleted = 0
    complete = True
    for sql, hours in (
        (_NOTIFICATIONS, kept),
        (_BATCHES, kept),
        (_KEYS, KEPT_HOURS),
        (_SENDERS, SENDER_HOURS),
    ):
        count, ended = _pruned(sql, hours, chunk, lambda: time.monotonic() < give_up)
        deleted += count
        complete &= ended
    if complete:
        jobs.note_done("prune_notifications")
    return deleted


def _pruned(sql: str, hours: int, chunk: int, goes_on: Callable[[], bool]) -> tuple[int, bool]:
    """The rows deleted, and whether it came to the end."""
    deleted, found, after = 0, chunk, _LEAST_ID
    while found == chunk and goes_on():
        found, last, count = row_of(sql, {"hours": hours, "after": after, "chunk": chunk})
        deleted += count
        after = last or after
    return deleted, found < chunk
