"""What the hub says to PostgreSQL about a log. Names of tables and columns are the code's."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.database.round_trips import Statement
from restapi.status_log import Following, StatusLog

__all__ = ["READ_AT_ONCE", "SNAPSHOT", "changed", "newest", "number", "oldest", "rows_between"]

NUMBERED_AT_ONCE = 1000
READ_AT_ONCE = 1000
_LOCK_SPACE = 20_232  # of advisory locks, ours

SNAPSHOT: Statement = ("SELECT pg_current_snapshot()::text", ())


def number(log: StatusLog, floor: int) -> Sequence[Statement]:
    """The numberer, in one transaction: the first statement says "true" if nobody else numbers this log
    now, the second how many rows it has numbered, of those with ids from `floor` on.

    The statement behind the lock sees all that its holder before has numbered; what was not committed
    by then gets a higher number later. The rows are locked, because one that is deleted would leave a
    gap."""
    return (
        (
            "SELECT set_config('status_log.mine',"
            " pg_try_advisory_xact_lock(%s::int, hashtext(%s::text))::text, true)",
            (_LOCK_SPACE, log.table),
        ),
        (
            f"""
            WITH committed AS MATERIALIZED (
                SELECT id FROM {log.table}
                WHERE seq IS NULL AND id >= %s::bigint
                  AND current_setting('status_log.mine') = 'true'
                ORDER BY id LIMIT %s::bigint FOR UPDATE
            ), numbered AS (
                UPDATE {log.table} AS log SET seq = ranked.seq
                FROM (
                    SELECT id, row_number() OVER (ORDER BY id)
                           + (SELECT coalesce(max(seq), 0) FROM {log.table}) AS seq
                    FROM committed
                ) AS ranked
                WHERE log.id = ranked.id
                RETURNING 1
            )
            SELECT count(*) FROM numbered
            """,
            (floor, NUMBERED_AT_ONCE),
        ),
    )


def rows_between(log: StatusLog, after: int, last: int) -> Statement:
    """Rows (seq, time, columns) with a seq above `after`, up to `last`, in order."""
    columns = ", ".join(("seq", log.at, *log.columns))
    return (
        f"SELECT {columns} FROM {log.table} WHERE seq > %s::bigint AND seq <= %s::bigint"
        " ORDER BY seq LIMIT %s::bigint",
        (after, last, READ_AT_ONCE),
    )


def newest(log: StatusLog) -> Statement:
    """The highest number that was given."""
    return (f"SELECT coalesce(max(seq), 0) FROM {log.table}", ())


def oldest(log: StatusLog) -> Statement:
    """The lowest number that is kept, and the highest; (1, 0) of an empty log. The purge remembers
    how far it came (restapi/status_upkeep.py), and what it deleted is not looked through again."""
    return (
        f"""
        WITH ends AS MATERIALIZED (
            SELECT coalesce((SELECT row_id FROM outbox_upkeep WHERE name = %s::text), 0) AS purged,
                   coalesce((SELECT max(seq) FROM {log.table}), 0) AS newest
        )
        SELECT coalesce((
                   SELECT min(seq) FROM {log.table}
                   WHERE seq > CASE WHEN purged < newest THEN purged ELSE 0 END
               ), 1), newest FROM ends
        """,
        (f"status_log:{log.name}",),
    )


def changed(following: Following, snapshot: str) -> Statement:
    """A row (snapshot now, subjects that changed since the snapshot that is given).

    By transaction, not by id or time: who began earlier may commit later.
    """
    return (
        f"""
        SELECT pg_current_snapshot()::text, ARRAY(
            SELECT DISTINCT {following.subject} FROM {following.changes}
            WHERE {following.xid} >= pg_snapshot_xmin(%s::pg_snapshot)
              AND NOT pg_visible_in_snapshot({following.xid}, %s::pg_snapshot)
              AND ({following.where}))
        """,
        (snapshot, snapshot),
    )
