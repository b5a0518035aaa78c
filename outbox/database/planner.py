"""How PostgreSQL goes about the statements of a transaction, where its own choice is wrong."""

from __future__ import annotations

from outbox.database.ask import rows_of

__all__ = ["plan_by_index", "plan_without"]


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
