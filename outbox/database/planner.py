"""How PostgreSQL goes about the statements of the open transaction: how it plans them where its own choice is
wrong, and how long they wait for the locks of others."""

from __future__ import annotations

from outbox.database.ask import rows_of

__all__ = ["limit_lock_waits", "plan_by_index", "plan_without"]


def plan_without(*methods: str) -> None:
    """Have the open transaction's statements avoid these: `seqscan` for enable_seqscan, and so on
    (https://www.postgresql.org/docs/current/runtime-config-query.html)."""
    rows_of(
        "SELECT set_config('enable_' || method, 'off', true) FROM unnest(%s::text[]) AS method",
        (list(methods),),
    )


def plan_by_index() -> None:
    """Have this transaction's statements walk along indexes.

    All that a drain reads and writes is found by a key, in the order of an index. Left to itself
    the planner sorts whole lanes for a batch, and reads the whole table to settle one: the work of
    a batch then grows with the backlog.
    """
    plan_without("bitmapscan", "seqscan", "hashjoin", "mergejoin")


def limit_lock_waits(seconds: float) -> None:
    """From here on the open transaction waits at most so long for each lock; after that PostgreSQL
    raises OperationalError with SQLSTATE 55P03. Sessions have a bound of their own, which this replaces."""
    rows_of("SELECT set_config('lock_timeout', %s, true)", (f"{round(seconds * 1000)}ms",))
