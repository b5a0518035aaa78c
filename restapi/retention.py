"""Deleting idempotency keys that are past their 24 hours, and erasing their answers, in small
chunks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from outbox.database import jobs
from outbox.database.ask import changed_by, row_of
from restapi.idempotency import KEPT_HOURS

__all__ = ["erase_answers", "erase_answers_with", "prune_idempotency_keys"]

CHUNK = 500  # rows, and as many entries of PostgreSQL's table of locks
RUN_SECONDS = 10.0

# One statement is one transaction. A key whose lock somebody holds is left for the next run, and
# a request for a key at just this moment gets a 409: nobody waits on either side. Whether a row is old
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
        found, last, count = row_of(_CHUNK, {"hours": KEPT_HOURS, "after": after, "chunk": chunk})
        deleted += count
        after = last or after
    if found < chunk:
        jobs.note_done("prune_idempotency_keys")
    return deleted


# The key of an answer that is erased stays used: what was done must not be done again.
_ERASED = b'{"error":"What this request was answered has been erased.","details":[]}'
# It reads the table, because nobody asks for an answer otherwise.
_ERASE = """
    UPDATE idempotency_keys SET status = 410, body = %s WHERE body = ANY(%s::bytea[])
"""


def erase_answers(bodies: Iterable[bytes]) -> int:
    """Empty the kept answers that are one of these: their requests, sent again, get a 410. Returns how
    many. Of a few hundred at a time."""
    return changed_by(_ERASE, (_ERASED, [*bodies]))


_ERASE_WITH = """
    WITH batch AS MATERIALIZED (
        SELECT id, created_at, position(%(text)s IN body) > 0 AS has_it FROM idempotency_keys
        WHERE (created_at, id) > (%(after)s, %(after_id)s::uuid)
        ORDER BY created_at, id LIMIT %(chunk)s
    ), last AS (
        SELECT created_at, id FROM batch ORDER BY created_at DESC, id DESC LIMIT 1
    ), erased AS (
        UPDATE idempotency_keys kept SET status = 410, body = %(erased)s
        FROM batch WHERE kept.id = batch.id AND batch.has_it RETURNING 1
    )
    SELECT (SELECT created_at FROM last), (SELECT id FROM last), (SELECT count(*) FROM erased)
"""


def erase_answers_with(text: bytes, *, chunk: int = 10 * CHUNK) -> int:
    """Empty every kept answer with these bytes in it: its request, sent again, gets a 410. Returns
    how many. Reads all that are kept."""
    count_erased = 0
    after: datetime | None = datetime(1970, 1, 1, tzinfo=UTC)
    after_id = UUID(int=0)
    while after is not None:
        after, after_id, count = row_of(
            _ERASE_WITH,
            {
                "text": text,
                "erased": _ERASED,
                "chunk": chunk,
                "after": after,
                "after_id": after_id,
            },
        )
        count_erased += count
    return count_erased
