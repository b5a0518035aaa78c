"""Stopping and starting a handler while everything runs: by hand, or by its circuit (rule R13).

`handler_control` says what is wanted and why; `bridge_position.paused` is what chunks and
redrives look at, under the position's lock. The circuit writes the first and its own partition;
`spread_pauses` carries it to the others, so that it need not wait for their locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from outbox.conf import CIRCUIT
from outbox.models import BridgePosition, HandlerControl
from outbox.topics import PartitionKey

__all__ = [
    "CIRCUIT_BREAKER",
    "Standing",
    "pause_handler",
    "register_handlers",
    "resume_handler",
    "spread_pauses",
    "standings",
    "trip_if_broken",
]

CIRCUIT_BREAKER = "circuit"
_LOCK = 0x6F62_6374  # any constant: one writer of pauses at a time
_WAIT = "10s"  # longer than any effect

log = structlog.get_logger("outbox.control")


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a handler runs, and if not, who said so, why, and since when."""

    handler: str
    paused: bool = False
    reason: str = ""
    changed_by: str = ""
    changed_at: datetime | None = None

    @property
    def tripped(self) -> bool:
        """Paused by its circuit."""
        return self.paused and self.changed_by == CIRCUIT_BREAKER


def standings(handlers: Iterable[str]) -> list[Standing]:
    """One for each handler, in order; one that was never touched runs."""
    rows = {
        row.handler: Standing(row.handler, row.paused, row.reason, row.changed_by, row.changed_at)
        for row in HandlerControl.objects.all()
    }
    return [rows.get(handler, Standing(handler)) for handler in handlers]


def register_handlers(handlers: Iterable[str]) -> None:
    """Give each handler its row, so that the admin shows it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO handler_control (handler) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING",
            (list(handlers),),
        )


def pause_handler(handler: str, *, reason: str, by: str) -> None:
    """Once this returns no effect of the handler runs and none begins; its positions stay.

    Waits for the effects that are running. Raises OperationalError if one takes too long.
    """
    with transaction.atomic():
        _lock_positions(handler)
        _set_paused(handler, paused=True)
        _control(handler, paused=True, reason=reason, by=by)
    log.warning("handler_paused", handler=handler, reason=reason, by=by)


def resume_handler(handler: str, *, by: str) -> int:
    """Let the handler run again, its circuit closed; returns how many dead letters of the run
    that tripped it are tried again at once, without waiting for their backoff."""
    with transaction.atomic():
        _lock_positions(handler)
        since = _failing_since(handler)
        _set_paused(handler, paused=False)
        _control(handler, paused=False, reason="", by=by)
        again = _retry_since(handler, since) if since else 0
    log.warning("handler_resumed", handler=handler, by=by, redriven=again)
    return again


def spread_pauses() -> None:
    """Carry each pause to all partitions of its handler; one that is locked waits for the next
    call. Called after a circuit tripped, and by beat."""
    lagging = HandlerControl.objects.filter(
        Exists(BridgePosition.objects.filter(handler=OuterRef("handler"), paused=False)),
        paused=True,
    )
    if not lagging.exists():
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,))
        if not cursor.fetchone()[0]:
            return
        cursor.execute(
            """
            UPDATE bridge_position SET paused = true
            WHERE id IN (
                SELECT id FROM bridge_position
                WHERE NOT paused AND handler IN (SELECT handler FROM handler_control WHERE paused)
                FOR UPDATE SKIP LOCKED
            )
            """
        )


def trip_if_broken(handler: str, key: PartitionKey) -> bool:
    """In the parking transaction: pause the handler if too much of it fails; whether that was so."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT sum(failure_run), sum(failures), sum(outcomes), min(failing_since)
            FROM bridge_position WHERE handler = %s
            """,
            (handler,),
        )
        run, failures, outcomes, since = cursor.fetchone()
        share = failures / outcomes if outcomes else 0.0
        if run < CIRCUIT.run and not (outcomes >= CIRCUIT.least and share >= CIRCUIT.share):
            return False
        cursor.execute(
            'UPDATE bridge_position SET paused = true WHERE handler = %s AND topic = %s AND "partition" = %s',
            (handler, *key),
        )
        reason = f"{run} failures in a row, {share:.0%} of the last outcomes failed"
        _control(handler, paused=True, reason=reason, by=CIRCUIT_BREAKER, since=since)
    log.error("circuit_tripped", handler=handler, reason=reason, advice="mend it, resume_handler")
    return True


def _lock_positions(handler: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_WAIT,))
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        cursor.execute(
            'SELECT FROM bridge_position WHERE handler = %s ORDER BY topic, "partition" FOR UPDATE',
            (handler,),
        )


def _set_paused(handler: str, *, paused: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE bridge_position
            SET paused = %s, failure_run = 0, failures = 0, outcomes = 0, failing_since = NULL
            WHERE handler = %s
            """,
            (paused, handler),
        )


def _control(
    handler: str, *, paused: bool, reason: str, by: str, since: datetime | None = None
) -> None:
    """A pause by hand keeps what the circuit knew, so that a resume still redrives its run."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO handler_control AS control
                (handler, paused, reason, changed_by, changed_at, failing_since)
            VALUES (%s, %s, %s, %s, clock_timestamp(), %s)
            ON CONFLICT (handler) DO UPDATE
            SET paused = excluded.paused, reason = excluded.reason,
                changed_by = excluded.changed_by, changed_at = excluded.changed_at,
                failing_since = CASE WHEN excluded.paused
                    THEN coalesce(control.failing_since, excluded.failing_since) END
            """,
            (handler, paused, reason, by, since),
        )


def _failing_since(handler: str) -> datetime | None:
    rows = HandlerControl.objects.filter(handler=handler)
    return rows.values_list("failing_since", flat=True).first()


def _retry_since(handler: str, since: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter
            SET replay_count = replay_count + CASE WHEN state = 2 THEN 1 ELSE 0 END,
                state = 0, attempts = 0, next_attempt_at = clock_timestamp()
            WHERE handler = %s AND state IN (0, 2) AND created_at >= %s
            """,
            (handler, since),
        )
        return int(cursor.rowcount)
