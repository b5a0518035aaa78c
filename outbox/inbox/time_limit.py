"""The time limit of a handler's transaction, which PostgreSQL enforces."""

from __future__ import annotations

from django.db import connection

from outbox.conf import BRIDGE
from outbox.database.ask import rows_of

__all__ = ["limit_transaction", "transaction_limit"]

TRANSACTION_TIMEOUT_SINCE = 170_000  # PostgreSQL 17


def transaction_limit() -> tuple[str, str]:
    """Columns of a SELECT with which PostgreSQL ends a transaction when an effect's time is up, and
    their one parameter.

    A database or a role may have a limit of its own. Its clock runs from the transaction's first
    statement, and another value, longer or shorter, does not set it again: only 0 stops it.
    """
    version: int = connection.pg_version  # type: ignore[attr-defined]  # of the PostgreSQL backend
    if version >= TRANSACTION_TIMEOUT_SINCE:
        columns = (
            "set_config('transaction_timeout', '0', true),"
            " set_config('transaction_timeout', %s, true)"
        )
    else:
        columns = "set_config('statement_timeout', %s, true)"
    return columns, f"{BRIDGE.effect_timeout}s"


def limit_transaction() -> None:
    columns, limit = transaction_limit()
    rows_of(f"SELECT {columns}", [limit])
