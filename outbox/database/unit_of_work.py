"""One transaction whose outcome the caller learns: stored, not stored, or unknown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)

from outbox.database.errors import LOST, READ_ONLY, is_server_fault, sqlstate_of

__all__ = [
    "Commit",
    "NotStored",
    "OutcomeUnknown",
    "TurnedAway",
    "commit_outcome",
    "joined_unit_of_work",
    "unit_of_work",
]

IDLE_TOO_LONG = "25P03"

# What the driver files under InternalError though nothing is wrong with us: PostgreSQL ended the session,
# idle in a transaction or too long in one, or takes no writes, as a standby in the middle of a failover.
NO_WRITES = (IDLE_TOO_LONG, "25P04", READ_ONLY)


class NotStored(OperationalError):
    """The database failed before COMMIT: nothing of the change is stored, it is safe to try again.

    refused  whether the server has refused these statements and goes on with others
    """

    outcome = "not_stored"

    def __init__(self, *args: object, refused: bool = False) -> None:
        super().__init__(*args)
        self.refused = refused


class TurnedAway(NotStored):
    """The request did not reach the database. The text is the reason, written as the beginning
    of a sentence for the client."""


class OutcomeUnknown(OperationalError):
    """The connection was lost with COMMIT under way: the change is stored whole or not at all, and
    we do not know."""

    outcome = "unknown"


@dataclass(slots=True)
class Commit:
    """What the owner of a transaction knows: whether the server may have begun with its COMMIT."""

    begun: bool = False


@contextmanager
def commit_outcome() -> Iterator[Commit]:
    """Around a transaction whose owner sets `begun` where the server may have begun with COMMIT:
    what became of it if the database fails.

    Raises NotStored or OutcomeUnknown in place of the driver's error; both are OperationalErrors.
    """
    commit = Commit()
    try:
        yield commit
    except (DatabaseError, InterfaceError) as error:
        if commit.begun and not _refused_by_server(error):
            raise OutcomeUnknown(str(error)) from error
        is_away = isinstance(error, OperationalError | InterfaceError)
        if not is_away and sqlstate_of(error) not in NO_WRITES:
            raise
        refused = is_away and not is_server_fault(error)
        raise NotStored(str(error), refused=refused) from error


@contextmanager
def unit_of_work() -> Iterator[None]:
    """The outermost transaction of one change, which distinguishes a failed COMMIT from everything before.

    Raises NotStored or OutcomeUnknown as `commit_outcome`.
    """
    with commit_outcome() as commit, transaction.atomic(durable=True):
        yield
        commit.begun = True


@contextmanager
def joined_unit_of_work() -> Iterator[None]:
    """The open transaction, whose owner commits it; where none is open, a unit of work."""
    with nullcontext() if connection.in_atomic_block else unit_of_work():
        yield


def _refused_by_server(error: DatabaseError | InterfaceError) -> bool:
    """Whether the server refused COMMIT: the SQLSTATE is neither a lost connection (08) nor an
    operator's intervention (57), because both may arrive after the commit was written. A FATAL
    or PANIC error may do so too, except the idle-in-transaction timeout (25P03), which ends the
    session before COMMIT is read."""
    sqlstate = sqlstate_of(error)
    if sqlstate == IDLE_TOO_LONG:
        return True
    if not sqlstate or sqlstate.startswith((LOST, "57")):
        return False
    diagnosis = getattr(error.__cause__, "diag", None)
    return getattr(diagnosis, "severity_nonlocalized", None) not in ("FATAL", "PANIC")
