"""The gate between fan-out and rebuild: everything that writes entries or raises a floor goes through
it together; a rebuild, the only thing that lowers a floor, goes through it alone."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from outbox.database.round_trips import RoundTrip, Row, Statement, send

__all__ = ["ALONE", "TOGETHER", "together"]

_GATE = 0x46454544  # an advisory lock of the transaction

# The statement behind it in the transaction has a snapshot that is newer than the lock.
TOGETHER: Statement = ("SELECT pg_advisory_xact_lock_shared(%s)", (_GATE,))
ALONE: Statement = ("SELECT pg_advisory_xact_lock(%s)", (_GATE,))


def together(*statements: Statement) -> list[Sequence[Row]]:
    """Their rows, through the gate in a transaction."""
    with transaction.atomic():
        return send(RoundTrip([TOGETHER, *statements]))[1:]
