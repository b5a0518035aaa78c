"""What a failure at COMMIT is told as, where no server can be made to fail so."""

from __future__ import annotations

from types import SimpleNamespace

import psycopg
import pytest
from django.db import connection

from outbox.database.unit_of_work import NotStored, OutcomeUnknown, commit_outcome


@pytest.mark.parametrize(
    ("severity", "raised"),
    [("ERROR", NotStored), ("FATAL", OutcomeUnknown), ("PANIC", OutcomeUnknown)],
)
def test_a_full_disk_at_commit(severity: str, raised: type[Exception]) -> None:
    """The end of the session may come when the commit is written; a mere error comes before."""

    class DiskFull(psycopg.errors.DiskFull):
        diag = SimpleNamespace(severity_nonlocalized=severity)  # type: ignore[assignment]

    with pytest.raises(raised):
        _fail_at_commit(DiskFull())


def _fail_at_commit(error: psycopg.Error) -> None:
    with commit_outcome() as commit, connection.wrap_database_errors:
        commit.begun = True
        raise error
