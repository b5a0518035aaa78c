"""How long a transaction waits for the locks of others."""

from __future__ import annotations

from outbox.database.ask import rows_of

__all__ = ["limit_lock_waits"]


def limit_lock_waits(seconds: float) -> None:
    """From here on the open transaction waits at most so long for each lock; after that PostgreSQL
    raises OperationalError with SQLSTATE 55P03. Sessions have a bound of their own, which this replaces."""
    rows_of("SELECT set_config('lock_timeout', %s, true)", (f"{round(seconds * 1000)}ms",))
