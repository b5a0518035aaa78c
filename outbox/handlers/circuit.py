"""The circuit of a handler, which pauses it when too much fails (guarantees.md#r13)."""

from __future__ import annotations

import structlog

from outbox import operator_log
from outbox.conf import CIRCUIT
from outbox.database.ask import row_of
from outbox.handlers.pause import CIRCUIT_BREAKER, NO_FAILURES, write_control
from outbox.inbox.positions import row_at
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
        # Events that were parked on request do not count as failures afterwards.
        row_at(handler, key).update(**NO_FAILURES)
        return False
    share = failures / outcomes if outcomes else 0.0
    if run < CIRCUIT.run and not (outcomes >= CIRCUIT.least and share >= CIRCUIT.share):
        return False
    row_at(handler, key).update(paused=True)
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
