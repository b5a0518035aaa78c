"""What the log says about order."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

__all__ = ["OrderVerdict", "verdict"]


@dataclass(frozen=True, slots=True)
class OrderVerdict:
    """Counts over the whole log.

    drawn       numbers committed
    applied     entries in the log
    lost        drawn and never logged
    duplicates  entries beyond the first of their (key, seq)
    violations  first entries whose predecessor of the same key came later or not at all
    """

    drawn: int
    applied: int
    lost: int
    duplicates: int
    violations: int

    @property
    def ok(self) -> bool:
        """Something was drawn, and all of it arrived, once, in order."""
        return self.drawn > 0 and not (self.lost or self.duplicates or self.violations)


def verdict() -> OrderVerdict:
    """Judge the log against the sequences; meaningful once nothing is under way."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH first AS (
                SELECT key, seq, min(id) AS id, count(*) AS times FROM probe_log GROUP BY key, seq
            ), stepped AS (
                SELECT seq, times, lag(seq) OVER (PARTITION BY key ORDER BY id) AS before FROM first
            ), logged AS (
                SELECT coalesce(sum(times), 0)::bigint AS applied, count(*) AS distinct_applied,
                       coalesce(sum(times - 1), 0)::bigint AS duplicates,
                       count(*) FILTER (WHERE seq <> coalesce(before, 0) + 1) AS violations
                FROM stepped
            )
            SELECT (SELECT coalesce(sum(seq), 0)::bigint FROM probe_sequence),
                   applied, distinct_applied, duplicates, violations
            FROM logged
            """
        )
        drawn, applied, distinct, duplicates, violations = cursor.fetchone()
    return OrderVerdict(
        drawn=drawn,
        applied=applied,
        lost=drawn - distinct,
        duplicates=duplicates,
        violations=violations,
    )
