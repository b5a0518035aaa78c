"""Stopping and starting a handler while everything runs: by an operator, or by its circuit
(guarantees.md#r13).

Chunks and redrives read `bridge_position.paused` under the position's lock. The circuit writes
`handler_control` and its own partition; `spread_pauses` copies it to the others."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Case, Exists, F, OuterRef, When
from django.db.models.functions import Now

from outbox import operator_log
from outbox.conf import CIRCUIT
from outbox.database.ask import changed_by, row_of, rows_of
from outbox.database.planner import limit_lock_waits
from outbox.dead_letters import letters
from outbox.inbox.positions import EFFECT_WAIT, lock_all_positions, row_at
from outbox.models import CIRCUIT_BREAKER, BridgePosition, HandlerControl
from outbox.topics import PartitionKey

__all__ = [
    "handler_statuses",
    "pause_handler",
    "register_handlers",
    "resume_handler",
    "spread_pauses",
    "trip_if_broken",
]

# What a position counts for the circuit, from the beginning.
_NO_FAILURES = {"failure_run": 0, "failures": 0, "outcomes": 0, "failing_since": None}
_LOCK = 0x6F62_6374  # any constant: one writer of pauses at a time

log = structlog.get_logger("outbox.control")


def handler_statuses(handlers: Iterable[str]) -> list[HandlerControl]:
    """The row of each handler, in order; one without a row runs. `parks_failures_until` is in the future,
    by the database's clock."""
    parks_until = Case(When(parks_failures_until__gt=Now(), then=F("parks_failures_until")))
    rows = {row.handler: row for row in HandlerControl.objects.annotate(parks_until=parks_until)}
    for row in rows.values():
        row.parks_failures_until = row.parks_until
    return [
        rows.get(each) or HandlerControl(handler=each, paused=False, reason="", changed_by="")
        for each in handlers
    ]


def register_handlers(handlers: Iterable[str]) -> None:
    """Give each handler its row, so that the admin shows it."""
    rows = [HandlerControl(handler=handler) for handler in handlers]
    HandlerControl.objects.bulk_create(rows, ignore_conflicts=True)


def pause_handler(handler: str, *, reason: str, by: str, once: UUID | None = None) -> None:
    """Pause the handler: once this returns, no effect of it runs and none begins. Its positions stay.

    Waits for running effects. Raises OperationalError if one takes too long, and
    DoneAlready for a form that was sent before.
    """
    with transaction.atomic():
        _lock_positions(handler)
        operator_log.note("pause", f"handler {handler}", by=by, why=reason, once=once)
        BridgePosition.objects.filter(handler=handler).update(paused=True, **_NO_FAILURES)
        _write_control(handler, paused=True, reason=reason, by=by)
    log.warning("handler_paused", handler=handler, reason=reason, by=by)


def resume_handler(
    handler: str,
    *,
    by: str,
    reason: str = "",
    park_failures: timedelta | None = None,
    once: UUID | None = None,
) -> int:
    """Let the handler run again, its circuit closed; returns how many dead letters of the run
    that tripped it are tried again at once, without waiting for their backoff.

    `park_failures`: for so long, by the database's clock, whatever fails is parked and the circuit
    does not trip. The next pause or resume ends it. Raises as pause_handler.
    """
    with transaction.atomic():
        _lock_positions(handler)
        control = HandlerControl.objects.filter(handler=handler).first()
        since = control.failing_since if control else None
        BridgePosition.objects.filter(handler=handler).update(paused=False, **_NO_FAILURES)
        _write_control(handler, paused=False, reason="", by=by, park_failures=park_failures)
        parked = "handler = %s AND state IN (0, 2) AND created_at >= %s"
        again = letters.try_again(parked, (handler, since)) if since else 0
        outcome = f"{again} dead letters are tried again now" if again else ""
        subject = f"handler {handler}"
        operator_log.note("resume", subject, by=by, why=reason, once=once, outcome=outcome)
    log.warning(
        "handler_resumed",
        handler=handler,
        by=by,
        redriven=again,
        parks_failures_seconds=park_failures.total_seconds() if park_failures else 0,
    )
    return again


def trip_if_broken(handler: str, key: PartitionKey) -> bool:
    """Pause the handler if too much of it fails, in the parking transaction. Returns whether it
    did."""
    run, failures, outcomes, since, parks_failures = row_of(
        """
        SELECT sum(failure_run), sum(failures), sum(outcomes), min(failing_since),
            EXISTS (SELECT FROM handler_control
                    WHERE handler = %s AND parks_failures_until > clock_timestamp())
        FROM bridge_position WHERE handler = %s
        """,
        (handler, handler),
    )
    if parks_failures:
        # Events that were parked on request do not count as failures afterwards.
        row_at(handler, key).update(**_NO_FAILURES)
        return False
    share = failures / outcomes if outcomes else 0.0
    if run < CIRCUIT.run and not (outcomes >= CIRCUIT.least and share >= CIRCUIT.share):
        return False
    row_at(handler, key).update(paused=True)
    reason = f"{run} failures in a row, {share:.0%} of the last outcomes failed"
    _write_control(handler, paused=True, reason=reason, by=CIRCUIT_BREAKER, since=since)
    operator_log.note("pause", f"handler {handler}", by=CIRCUIT_BREAKER, why=reason)
    log.error(
        "circuit_tripped",
        handler=handler,
        reason=reason,
        advice=f"repair the handler, then run manage.py handlers resume {handler}",
    )
    return True


def spread_pauses() -> None:
    """Carry each pause to all partitions of its handler; one that is locked waits for the next
    call. Called after a circuit tripped, and by beat."""
    lagging = HandlerControl.objects.filter(
        Exists(BridgePosition.objects.filter(handler=OuterRef("handler"), paused=False)),
        paused=True,
    )
    if not lagging.exists():
        return
    with transaction.atomic():
        [mine] = row_of("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,))
        if not mine:
            return
        changed_by(
            """
            UPDATE bridge_position SET paused = true
            WHERE id IN (
                SELECT id FROM bridge_position
                WHERE NOT paused AND handler IN (SELECT handler FROM handler_control WHERE paused)
                FOR UPDATE SKIP LOCKED
            )
            """
        )


def _lock_positions(handler: str) -> None:
    limit_lock_waits(EFFECT_WAIT)
    rows_of("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    lock_all_positions(handler)


def _write_control(
    handler: str,
    *,
    paused: bool,
    reason: str,
    by: str,
    since: datetime | None = None,
    park_failures: timedelta | None = None,
) -> None:
    """An operator's pause keeps what the circuit knew, so that a resume still redrives its run."""
    changed_by(
        """
        INSERT INTO handler_control AS control
            (handler, paused, reason, changed_by, changed_at, failing_since,
             parks_failures_until)
        VALUES (%s, %s, %s, %s, clock_timestamp(), %s, clock_timestamp() + make_interval(secs => %s))
        ON CONFLICT (handler) DO UPDATE
        SET paused = excluded.paused, reason = excluded.reason,
            changed_by = excluded.changed_by, changed_at = excluded.changed_at,
            failing_since = CASE WHEN excluded.paused
                THEN coalesce(control.failing_since, excluded.failing_since) END,
            parks_failures_until = excluded.parks_failures_until
        """,
        (
            handler,
            paused,
            reason,
            by,
            since,
            park_failures.total_seconds() if park_failures else None,
        ),
    )
