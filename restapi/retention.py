"""Letting go of idempotency keys that are past their 24 hours, in small chunks."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.db import connection

from outbox import upkeep
from restapi.idempotency import KEPT_HOURS

__all__ = ["prune_idempotency_keys"]

CHUNK = 500  # rows, and as many entries of PostgreSQL's table of locks
RUN_SECONDS = 10.0

# One statement is one transaction. A key whose lock somebody holds is left for the next run, and
# who wants a key in just this moment is told 409: nobody waits on either side. Whether a row is old
# is asked once more when it is deleted, because its key may have been used again meanwhile.
_CHUNK = """
    WITH old AS MATERIALIZED (
        SELECT id, created_at FROM idempotency_keys
        WHERE created_at < statement_timestamp() - make_interval(hours => %(hours)s)
          AND created_at >= %(after)s
        ORDER BY created_at LIMIT %(chunk)s
    ), mine AS MATERIALIZED (
        SELECT id FROM old WHERE pg_try_advisory_xact_lock(
            ('x' || encode(substr(uuid_send(id), 1, 8), 'hex'))::bit(64)::bigint)
    ), gone AS (
        DELETE FROM idempotency_keys kept USING mine
        WHERE kept.id = mine.id
          AND kept.created_at < statement_timestamp() - make_interval(hours => %(hours)s)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM old), (SELECT max(created_at) FROM old),
           (SELECT count(*) FROM gone)
"""


def prune_idempotency_keys(*, seconds: float = RUN_SECONDS, chunk: int = CHUNK) -> int:
    """Delete what is past its time, for at most about `seconds`; returns the rows.

    Each chunk begins where the last one ended, not among the index entries of what it deleted.
    """
    give_up = time.monotonic() + seconds
    deleted, found, after = 0, chunk, datetime(1970, 1, 1, tzinfo=UTC)
    while found == chunk and time.monotonic() < give_up:
        with connection.cursor() as cursor:
            cursor.execute(_CHUNK, {"hours": KEPT_HOURS, "after": after, "chunk": chunk})
            found, last, count = cursor.fetchone()
        deleted += count
        after = last or after
    if found < chunk:
        upkeep.note_done("prune_idempotency_keys")
    return deleted
