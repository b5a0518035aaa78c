"""An effect's time is kept whatever limit the database or the role gives its transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction

from outbox import conf
from outbox.database.errors import is_timeout
from outbox.inbox import time_limit
from outbox.inbox.positions import create_positions, lock_positions
from outbox.inbox.time_limit import limit_transaction
from outbox.kafka.admin import TopicState

pytestmark = pytest.mark.django_db(transaction=True)

HANDLER, TOPIC = "limited", "limited-events"


def by_itself() -> None:
    limit_transaction()


def with_positions() -> None:
    keys = [(TOPIC, number) for number in range(3)]
    assert len(lock_positions(HANDLER, keys, limited=True)) == len(keys)


@pytest.fixture
def session() -> Iterator[None]:
    starts = dict.fromkeys(range(3), 0)
    create_positions(HANDLER, TopicState(TOPIC, uuid4(), starts, starts), since="earliest")
    yield
    connection.close()


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("limit", [by_itself, with_positions])
@pytest.mark.parametrize("of_the_session", ["0", "60s"])
def test_it_is_kept(
    monkeypatch: pytest.MonkeyPatch, limit: Callable[[], None], of_the_session: str
) -> None:
    monkeypatch.setattr(time_limit, "BRIDGE", replace(conf.BRIDGE, effect_timeout=0.2))
    with pytest.raises(DatabaseError) as ended:
        _slow_effect(limit, of_the_session, seconds=5)
    assert is_timeout(ended.value)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("limit", [by_itself, with_positions])
def test_a_shorter_one_of_the_session_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, limit: Callable[[], None]
) -> None:
    monkeypatch.setattr(time_limit, "BRIDGE", replace(conf.BRIDGE, effect_timeout=60.0))
    _slow_effect(limit, "500ms", seconds=1)


def _slow_effect(limit: Callable[[], None], of_the_session: str, *, seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET {_setting()} = '{of_the_session}'")
        with transaction.atomic():
            limit()
            cursor.execute("SELECT pg_sleep(%s)", [seconds])


def _setting() -> str:
    version: int = connection.pg_version  # type: ignore[attr-defined]
    since = time_limit.TRANSACTION_TIMEOUT_SINCE
    return "transaction_timeout" if version >= since else "statement_timeout"
