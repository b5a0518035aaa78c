"""The gate between fan-out and rebuild.

Everything that writes entries or raises a floor goes through it together; a rebuild, the only thing
that lowers a floor, goes through it alone. Otherwise a slice could leave out a post because it lies
below a floor that a rebuild lowers at the same moment, and nobody would ever write it.
"""

from __future__ import annotations

from outbox.database.round_trips import Statement

__all__ = ["ALONE", "TOGETHER"]

_GATE = 0x46454544  # an advisory lock of the transaction

# The statement behind it in the transaction has a snapshot that is newer than the lock.
TOGETHER: Statement = ("SELECT pg_advisory_xact_lock_shared(%s)", (_GATE,))
ALONE: Statement = ("SELECT pg_advisory_xact_lock(%s)", (_GATE,))
