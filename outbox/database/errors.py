"""Which errors pass by themselves, and which are those of an event (guarantees.md#r11)."""

from __future__ import annotations

import redis
from django.db import Error, InterfaceError, InternalError, OperationalError

from outbox.database.patience import Unanswered

__all__ = [
    "DATABASE_AWAY",
    "LOST",
    "READ_ONLY",
    "describe",
    "is_busy",
    "is_server_fault",
    "is_timeout",
    "is_transient",
    "sqlstate_of",
]

LOCK_NOT_AVAILABLE = "55P03"
LOST = "08"  # class of a connection that is lost
READ_ONLY = "25006"  # a standby, as one is that is asked in the middle of a failover
_CONFLICTS = frozenset({"40001", "40P01"})  # serialization, deadlock
_PASSING = _CONFLICTS | {LOCK_NOT_AVAILABLE, READ_ONLY}
# Connection lost, out of resources, operator's intervention, trouble of the server's system.
_PASSING_CLASSES = (LOST, "53", "57", "58")
# Errors that a loop waits out. Django raises InternalError for a read-only server and for a
# session that was ended.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)
# The statement, the transaction or the session was ended because it took too long.
_TIMEOUTS = frozenset({"57014", "25P03", "25P04"})


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE of a database error, empty for anything else."""
    return getattr(error.__cause__, "sqlstate", None) or ""


def is_busy(error: Exception) -> bool:
    """Another transaction holds one of the positions."""
    return sqlstate_of(error) == LOCK_NOT_AVAILABLE


def is_timeout(error: Exception) -> bool:
    """The event may be to blame: it was ended, or given up, for taking too long."""
    return sqlstate_of(error) in _TIMEOUTS or isinstance(error.__cause__, Unanswered)


def is_transient(error: Exception) -> bool:
    """Whether the same events can be expected to pass later without anyone's help."""
    if isinstance(error, Error):
        state = sqlstate_of(error)
        if not state:  # no answer from the server at all
            return isinstance(error, OperationalError | InterfaceError)
        return state in _PASSING | _TIMEOUTS or state.startswith(_PASSING_CLASSES)
    return isinstance(
        error, ConnectionError | TimeoutError | redis.ConnectionError | redis.TimeoutError
    )


def is_server_fault(error: Exception) -> bool:
    """Whether the server is the cause of a database error (down, out of resources, timed out)
    and not this statement: any other transaction would fail too."""
    return is_transient(error) and sqlstate_of(error) not in _CONFLICTS


def describe(error: Exception) -> str:
    """One line for people, for example `ValueError: no such product`."""
    return f"{type(error).__name__}: {error}"
