"""Letting go of changes that no cached feed can have missed."""

from __future__ import annotations

import time

from django.conf import settings

from feeds.reading.changes import MARGIN_SECONDS
from outbox.database import jobs
from outbox.database.ask import row_of

__all__ = ["prune_changes"]

CHUNK = 5_000
RUN_SECONDS = 10.0

# By transactions, the oldest first and up to the first that is young. One that a running
# transaction may be older than stays, because fills name that one as the oldest that they may
# not have seen. In the same statement the mark is set: a process that has not asked for so
# long, or begins only now, derives from it which cached feeds it can judge, so nothing depends
# on what was taken for old.
_PRUNE = """
    WITH next AS MATERIALIZED (
        SELECT id, xid, at < statement_timestamp() - make_interval(secs => %s) AS is_old
        FROM feed_changes
        WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) AND kind <> 'pruned'
        ORDER BY xid LIMIT %s
    ), young AS MATERIALIZED (
        SELECT min(xid) AS first FROM next WHERE NOT is_old
    ), old AS MATERIALIZED (
        SELECT id, xid FROM next, young WHERE first IS NULL OR xid < first
    ), gone AS (
        DELETE FROM feed_changes USING old WHERE feed_changes.id = old.id RETURNING old.xid
    ), before AS (
        DELETE FROM feed_changes WHERE kind = 'pruned' AND EXISTS (SELECT FROM old)
    ), mark AS (
        INSERT INTO feed_changes (kind, author_id, xid)
        SELECT 'pruned', '', max(xid::text::bigint + 1)::text::xid8 FROM old HAVING count(*) > 0
    )
    SELECT count(*) FROM gone
"""


def prune_changes(*, seconds: float = RUN_SECONDS, chunk: int = CHUNK) -> int:
    """Delete them, for at most about `seconds`; returns how many."""
    end = time.monotonic() + seconds
    deleted, count = 0, chunk
    while count == chunk and time.monotonic() < end:
        [count] = row_of(_PRUNE, (settings.FEED_CACHE_SECONDS + 2 * MARGIN_SECONDS, chunk))
        deleted += count
    if count < chunk:
        jobs.note_done("prune_feed_changes")
    return deleted
