"""The circuit of a handler, which pauses it when too much fails (guarantees.md#r13)."""

from __future__ import annotations

import structlog

from outbox.conf import CIRCUIT
from outbox.database import operator_log
from outbox.database.ask import changed_by, row_of
from outbox.handlers.pause import CIRCUIT_BREAKER, forget_failures, write_control
from outbox.topics import PartitionKey

__all__ = ["trip_if_broken"]

log = structlog.get_logger("outbox.control")


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
        forget_failures(handler, key)
        return False
    share = failures / outcomes if outcomes else 0.0
    if run < CIRCUIT.run and not (outcomes >= CIRCUIT.least and share >= CIRCUIT.share):
        return False
    changed_by(
        'UPDATE bridge_position SET paused = true WHERE handler = %s AND topic = %s AND "partition" = %s',
        (handler, *key),
    )
    reason = f"{run} failures in a row, {share:.0%} of the last outcomes failed"
    write_control(handler, paused=True, reason=reason, by=CIRCUIT_BREAKER, since=since)
    operator_log.note("pause", f"handler {handler}", by=CIRCUIT_BREAKER, why=reason)
    log.error(
        "circuit_tripped",
        handler=handler,
        reason=reason,
        advice=f"repair the handler, then run manage.py handlers resume {handler}",
    )
    return True
