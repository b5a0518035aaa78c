"""What check_servers says of a pooler between us and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from eventsite.tests.pooler import pooler_to
from outbox.upkeep.check_result import Level
from outbox.upkeep.postgres_checks import check_pooler

pytestmark = pytest.mark.django_db


@contextmanager
def sessions_through(port: int) -> Iterator[BaseDatabaseWrapper]:
    """A connection of ours by that port, as copies of it are."""
    made = connection.copy()
    made.settings_dict |= {"HOST": "127.0.0.1", "PORT": str(port)}
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("by_transaction", "level", "served"), [(False, Level.OK, 1), (True, Level.ERROR, 2)]
)
def test_a_pooler_by_its_mode(by_transaction: bool, level: Level, served: int) -> None:
    found = connection.settings_dict
    server = found["HOST"], int(found["PORT"])
    with (
        pooler_to(*server, by_transaction=by_transaction) as port,
        sessions_through(port) as ours,
    ):
        result = check_pooler(ours)
    assert (result.level, result.risk) == (level, "")
    assert result.found.endswith(f"server processes of one session: {served}")
    assert ("transaction mode" in result.means) == by_transaction


def test_no_pooler() -> None:
    result = check_pooler(connection)
    assert result.level is Level.OK
    assert result.found == "sessions: connected directly, server processes of one session: 1"
