"""How long a transaction of a handler may take, kept by PostgreSQL itself."""

from __future__ import annotations

from django.db import connection

from outbox.conf import BRIDGE

__all__ = ["limit_transaction", "transaction_limit"]


TRANSACTION_TIMEOUT_SINCE = 170_000  # PostgreSQL 17


def transaction_limit() -> tuple[str, str]:
    """Setting and value with which PostgreSQL ends a transaction when an effect's time is up."""
    version: int = connection.pg_version  # type: ignore[attr-defined]  # of the PostgreSQL backend
    whole = version >= TRANSACTION_TIMEOUT_SINCE
    return "transaction_timeout" if whole else "statement_timeout", f"{BRIDGE.effect_timeout}s"


def limit_transaction() -> None:
    """Set the limit for the open transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config(%s, %s, true)", transaction_limit())
