"""The SQL of delivery: ready notifications, claims, results, holds and senders.

Each function that changes a status records the change for the status log in the same transaction. A claim is a
lease as in outbox/database/leases.py: `due_at` is its end and `attempt` its number, and a write names the
number that it holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import msgspec
from django.db import transaction

from notifications.delivery.channels import KEEP_OUT_PAUSES, NOT_PAUSED
from notifications.delivery.rules import Claim, Result
from notifications.models import Channel, Outcome, Priority
from notifications.status_log import CHANGED, Changed, recording
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import changed_by, rows_of
from outbox.database.planner import plan_by_index
from outbox.database.round_trips import RoundTrip, Row, send

__all__ = [
    "CHANNELS",
    "SENDER_SECONDS",
    "Ready",
    "Settled",
    "Written",
    "assign",
    "claim",
    "held",
    "hold",
    "keep_sender",
    "look",
    "ready_priorities",
    "settle",
]

CHANNELS = tuple(Channel.values)
SENDER_SECONDS = 10.0  # since it was seen last, a sender counts as alive

_CHANGED_COLUMNS = 10  # of CHANGED


class Ready(msgspec.Struct, frozen=True):
    """The ready notifications, and what may delay them.

    ready    notifications that may be claimed, by channel, counted up to a bound
    holds    seconds that a provider still asks to wait, by provider and channel
    senders  processes that send
    """

    ready: Mapping[str, int]
    holds: Mapping[tuple[str, str], float]
    senders: int


class Written(NamedTuple):
    """A notification's priority and, if it was delivered, the milliseconds since it was accepted."""

    priority: str
    latency_ms: int | None


class Settled(msgspec.Struct, frozen=True):
    """The outcome of `settle`; results are named by the id and number of their attempts.

    written  results that changed their notification
    late     results whose attempt had been given up before. A result in neither was written before (the
             answer to its COMMIT was lost), or its attempt never called the provider
    """

    written: Mapping[tuple[str, int], Written] = {}
    late: Set[tuple[str, int]] = frozenset()


_READY = f"""
    SELECT wanted.channel, (SELECT count(*) FROM (
        SELECT 1 FROM notifications
        WHERE channel = wanted.channel AND priority = %s AND status = 'pending'
          AND due_at <= clock_timestamp() AND expires_at > clock_timestamp()
        ORDER BY due_at LIMIT %s
    ) AS counted)
    FROM unnest(%s::text[]) AS wanted (channel)
    WHERE {NOT_PAUSED}
"""
_HOLDS = """
    SELECT provider, channel, extract(epoch FROM until - clock_timestamp())::float
    FROM notification_holds WHERE until > clock_timestamp()
"""
_SENDERS = """
    SELECT count(*) FROM notification_senders
    WHERE seen_at > clock_timestamp() - make_interval(secs => %s::float)
"""


def held() -> dict[tuple[str, str], float]:
    """Seconds that providers still ask to wait, by provider and channel."""
    return {(provider, channel): seconds for provider, channel, seconds in rows_of(_HOLDS)}


def look(priority: str, channels: Sequence[str], *, most: int) -> Ready:
    """The ready notifications of a priority, counted up to `most` per channel."""
    with transaction.atomic():
        plan_by_index()
        ready, holds, senders = send(
            RoundTrip(
                [
                    (_READY, (priority, most, text_array_literal(channels))),
                    (_HOLDS, ()),
                    (_SENDERS, (str(SENDER_SECONDS),)),
                ]
            )
        )
    return Ready(
        {channel: count for channel, count in ready if count},
        {(provider, channel): seconds for provider, channel, seconds in holds},
        senders[0][0],
    )


_READY_PRIORITIES = f"""
    SELECT asked.priority FROM unnest(%s::text[]) AS asked (priority)
    WHERE EXISTS (
        SELECT FROM unnest(%s::text[]) AS wanted (channel) CROSS JOIN LATERAL (
            SELECT 1 FROM notifications
            WHERE channel = wanted.channel AND priority = asked.priority AND status = 'pending'
              AND due_at <= clock_timestamp() AND expires_at > clock_timestamp()
            ORDER BY due_at LIMIT 1
        ) AS first WHERE {NOT_PAUSED})
"""


def ready_priorities(channels: Sequence[str]) -> list[str]:
    """Priorities of which something is ready on one of the channels."""
    asked = text_array_literal(Priority.values), text_array_literal(channels)
    with transaction.atomic():
        plan_by_index()
        [found] = send(RoundTrip([(_READY_PRIORITIES, asked)]))
    return [priority for (priority,) in found]


# MATERIALIZED, so that no plan runs the inner statement again for each row.
_CLAIM = f"""
    WITH wanted AS (
        SELECT * FROM unnest(%s::text[], %s::int[]) AS wanted (channel, count) WHERE {NOT_PAUSED}
    ), before AS MATERIALIZED (
        SELECT free.id, free.status FROM wanted CROSS JOIN LATERAL (
            SELECT id, status FROM notifications
            WHERE channel = wanted.channel AND priority = %s AND status = 'pending'
              AND due_at <= clock_timestamp() AND expires_at > clock_timestamp()
            ORDER BY due_at LIMIT wanted.count FOR UPDATE SKIP LOCKED
        ) AS free
    )
    UPDATE notifications AS changed
    SET status = 'processing', attempt = changed.attempt + 1, waits_for = '',
        due_at = clock_timestamp() + make_interval(secs => %s::float),
        updated_at = clock_timestamp()
    FROM before WHERE changed.id = before.id
    RETURNING {CHANGED}, changed.attempt, changed.recipient, changed.content,
        coalesce(changed.template_name, ''), changed.round, changed.retry_count,
        changed.max_retries
"""


def claim(priority: str, counts: Mapping[str, int], *, seconds: float) -> list[Claim]:
    """Claim up to `counts` notifications of each channel for `seconds`, and record the changes, both in the
    open transaction.

    It skips rows that another transaction holds, notifications whose time is over, and paused channels. Each
    claim begins an attempt, which `assign` writes.
    """
    started = time.monotonic()
    plan_by_index()
    parameters = (
        text_array_literal(list(counts)),
        array_literal(counts.values()),
        priority,
        str(seconds),
    )
    # A pause waits for claims that have begun. A claim that begins after it reads that the channel is paused.
    _, rows = send(RoundTrip([KEEP_OUT_PAUSES, (_CLAIM, parameters)]))
    send(recording([Changed(*row[:_CHANGED_COLUMNS]) for row in rows]))
    return [_claim_of(row, started + seconds) for row in rows]


def _claim_of(row: Row, until: float) -> Claim:
    number, recipient, content, title, round_, failures, allowed = row[_CHANGED_COLUMNS:]
    return Claim(
        id=row[0],
        number=number,
        channel=row[3],
        recipient=recipient,
        content=content,
        title=title,
        round=round_,
        failures=failures,
        attempts_allowed=allowed,
        traceparent=row[7],
        until=until,
    )


_BEGIN_ATTEMPTS = """
    INSERT INTO notification_attempts (notification_id, number, provider)
    SELECT * FROM unnest(%s::uuid[], %s::int[], %s::text[])
"""


def assign(claims: Sequence[tuple[Claim, str]]) -> None:
    """Write the attempts that the claims of the open transaction begin, each with its provider."""
    if not claims:
        return
    changed_by(
        _BEGIN_ATTEMPTS,
        (
            array_literal(each.id for each, _ in claims),
            array_literal(each.number for each, _ in claims),
            text_array_literal([provider for _, provider in claims]),
        ),
    )


# A result changes a notification only if its attempt still holds the claim. LATERAL finds each row by its key;
# another join would compare every result with every row. The results come sorted.
_RESULT = """
    result AS MATERIALIZED (
        SELECT * FROM unnest(
            %s::uuid[], %s::int[], %s::text[], %s::text[], %s::float[], %s::text[], %s::int[],
            %s::text[], %s::text[], %s::text[], %s::text[]
        ) AS result (
            id, number, outcome, status, wait, waits_for, used_up,
            status_code, latency_ms, error, message_id
        )
    )
"""
_SETTLE = f"""
    WITH {_RESULT}, before AS MATERIALIZED (
        SELECT result.*, held.status_before FROM result CROSS JOIN LATERAL (
            SELECT status AS status_before FROM notifications
            WHERE id = result.id AND attempt = result.number AND status = 'processing'
            FOR UPDATE
        ) AS held
    ), changed AS MATERIALIZED (
        UPDATE notifications AS changed
        SET status = before.status,
            due_at = CASE WHEN before.wait >= 0
                THEN clock_timestamp() + make_interval(secs => before.wait) END,
            waits_for = before.waits_for,
            retry_count = changed.retry_count + before.used_up,
            error_message = CASE WHEN before.status = 'failed' THEN nullif(before.error, '') END,
            provider_message_id = nullif(before.message_id, ''),
            sent_at = CASE WHEN before.status = 'delivered' THEN clock_timestamp() END,
            failed_at = CASE WHEN before.status = 'failed' THEN clock_timestamp() END,
            updated_at = clock_timestamp()
        FROM before WHERE changed.id = before.id
        RETURNING changed.*, before.status_before, before.number, before.outcome,
            before.status_code, before.latency_ms, before.error
    ), closed AS (
        UPDATE notification_attempts AS attempt
        SET outcome = found.outcome,
            status_code = nullif(found.status_code, '')::int,
            latency_ms = nullif(found.latency_ms, '')::int,
            error = nullif(found.error, ''),
            next_attempt_at = CASE WHEN found.status = 'pending' THEN found.due_at END
        FROM (
            SELECT changed.*, begun.attempt_id FROM changed CROSS JOIN LATERAL (
                SELECT id AS attempt_id FROM notification_attempts
                WHERE notification_id = changed.id AND number = changed.number LIMIT 1
            ) AS begun
        ) AS found
        WHERE attempt.id = found.attempt_id
    )
    SELECT {CHANGED}, changed.number, changed.priority FROM changed
    CROSS JOIN LATERAL (SELECT changed.status_before AS status) AS before
    ORDER BY changed.id
"""
# A late result: its attempt was closed as unknown, or its notification has changed since. An attempt that has an
# outcome keeps it, because the same results were written before. An attempt that called no provider is not late.
_TOO_LATE = f"""
    WITH {_RESULT}, found AS MATERIALIZED (
        SELECT result.*, begun.attempt_id FROM result CROSS JOIN LATERAL (
            SELECT id AS attempt_id FROM notification_attempts
            WHERE notification_id = result.id AND number = result.number
              AND (outcome IS NULL OR outcome = 'unknown') LIMIT 1
        ) AS begun
    )
    UPDATE notification_attempts AS attempt
    SET outcome = CASE WHEN found.latency_ms = '' THEN found.outcome ELSE 'late' END,
        status_code = nullif(found.status_code, '')::int,
        latency_ms = nullif(found.latency_ms, '')::int,
        error = nullif(found.error, '')
    FROM found WHERE attempt.id = found.attempt_id
    RETURNING attempt.notification_id::text, attempt.number, attempt.outcome
"""


def settle(results: Sequence[Result]) -> Settled:
    """Write results and record the changes, both in the open transaction."""
    if not results:
        return Settled()
    plan_by_index()
    results = sorted(results, key=lambda each: each.claim.id)
    changes, written = [], {}
    for *row, number, priority in rows_of(_SETTLE, _columns(results)):
        change = Changed(*row)
        changes.append(change)
        written[change.notification_id, number] = Written(priority, change.latency_ms)
    rest = [each for each in results if each.claim.key not in written]
    closed = rows_of(_TOO_LATE, _columns(rest)) if rest else []
    send(recording(changes))
    late = {(id_, number) for id_, number, outcome in closed if outcome == Outcome.LATE}
    return Settled(written, late)


def _columns(results: Sequence[Result]) -> Sequence[str]:
    return (
        array_literal(each.claim.id for each in results),
        array_literal(each.claim.number for each in results),
        text_array_literal([each.outcome for each in results]),
        text_array_literal([each.status for each in results]),
        array_literal(-1.0 if each.wait is None else each.wait for each in results),
        text_array_literal([each.waits_for for each in results]),
        array_literal(int(each.used_up) for each in results),
        text_array_literal([_text(each.status_code) for each in results]),
        text_array_literal([_text(each.latency_ms) for each in results]),
        text_array_literal([_text(each.error).replace("\0", "") for each in results]),
        text_array_literal([_text(each.message_id) for each in results]),
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)


_HOLD = """
    INSERT INTO notification_holds AS held (provider, channel, until)
    SELECT provider, channel, clock_timestamp() + make_interval(secs => seconds)
    FROM unnest(%s::text[], %s::text[], %s::float[]) AS asked (provider, channel, seconds)
    ORDER BY provider, channel
    ON CONFLICT (provider, channel) DO UPDATE SET until = greatest(held.until, excluded.until)
"""


def hold(seconds: Mapping[tuple[str, str], float]) -> None:
    """Write, in the open transaction, for how long providers asked to wait with channels."""
    if not seconds:
        return
    changed_by(
        _HOLD,
        (
            text_array_literal([provider for provider, _ in seconds]),
            text_array_literal([channel for _, channel in seconds]),
            array_literal(seconds.values()),
        ),
    )


def keep_sender(id_: str, name: str) -> None:
    """Write that this process sends, so that it gets its share of the limit while Redis is unavailable."""
    changed_by(
        "INSERT INTO notification_senders (id, name) VALUES (%s::uuid, %s::text)"
        " ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()",
        (id_, name),
    )
