"""/ws: changes of status, to those who may see them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apikeys import services as key_services
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.web import Web, web_process
from notifications.status_log import Changed, recording
from outbox.database.round_trips import send
from outbox.database.unit_of_work import unit_of_work

pytestmark = pytest.mark.django_db(transaction=True)
AT = datetime(2026, 11, 30, 1, 2, 3, 456_789, tzinfo=UTC)


@pytest.fixture(scope="module")
def web_of_module(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    with django_db_blocker.unblock(), web_process() as started:
        yield started


@pytest.fixture
def web(web_of_module: Web, transactional_db: None) -> Web:
    """Its database is empty, and it has noticed."""

    def knows() -> bool:
        with feed(web_of_module) as client:
            return opened(client) == 0

    assert settles(knows)
    return web_of_module


@contextmanager
def feed(web: Web, query: str = "", key: str = "") -> Iterator[ClientConnection]:
    headers = {"X-API-Key": key} if key else {}
    url = f"ws://127.0.0.1:{web.port}/ws{query}"
    with connect(url, additional_headers=headers, proxy=None, open_timeout=PATIENCE) as client:
        yield client


def heard(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=PATIENCE))
    return message


def opened(client: ClientConnection) -> int:
    message = heard(client)
    assert message["type"] == "open", message
    return int(message["seq"])


def change(caller: str, status: str, batch_id: str | None = None) -> str:
    """A status that changed; the notification's id."""
    id_ = str(uuid4())
    told = Changed(
        notification_id=id_,
        batch_id=batch_id,
        caller=caller,
        channel="sms",
        previous="pending",
        status=status,
        at=AT,
    )
    with unit_of_work():
        send(recording([told]))
    return id_


def key_of(name: str, *scopes: str) -> str:
    made = key_services.create_key(
        name=name, scopes=scopes, expires_at=None, by="test", at=datetime.now(UTC)
    )
    return made.key


def test_a_change_in_the_contracts_words(web: Web) -> None:
    with feed(web) as client:
        start = opened(client)
        id_ = change("shop", "processing")
        assert heard(client) == {
            "notification_id": id_,
            "status": "processing",
            "timestamp": "2026-11-30T01:02:03.456Z",
            "seq": start + 1,
        }


def test_a_key_sees_what_its_caller_has_created(web: Web) -> None:
    shop = key_of("shop", "notifications:read")
    whole = key_of("support", "notifications:read", "notifications:all")
    with feed(web, key=shop) as mine, feed(web, key=whole) as everything, feed(web) as nobodys:
        for client in (mine, everything, nobodys):
            opened(client)
        changed = [change("other", "delivered"), change("shop", "failed")]
        assert heard(mine)["notification_id"] == changed[1]
        assert [heard(everything)["notification_id"] for _ in range(2)] == changed
        assert [heard(nobodys)["notification_id"] for _ in range(2)] == changed
    theirs = changed[0]
    with feed(web, f"?notification_id={theirs}&since=0", shop) as client:
        opened(client)
        last = change("shop", "failed")
        with feed(web, f"?notification_id={last}&since=0", shop) as after:
            opened(after)
            assert heard(after)["notification_id"] == last  # so the other one has been passed by
        with pytest.raises(TimeoutError):
            client.recv(timeout=0)


def test_filters(web: Web) -> None:
    batch = str(uuid4())
    with feed(web, f"?batch_id={batch}") as of_batch:
        opened(of_batch)
        change("shop", "delivered")
        members = [change("shop", "delivered", batch) for _ in range(2)]
        assert [heard(of_batch)["notification_id"] for _ in range(2)] == members
    for query in (
        f"?notification_id={members[1]}&since=0",
        f"?notification_id={members[1].upper()}&batch_id={batch}&since=0",
    ):
        with feed(web, query) as client:
            opened(client)
            assert heard(client)["notification_id"] == members[1]


@pytest.mark.parametrize("name", ["notification_id", "batch_id"])
@pytest.mark.parametrize("value", ["", "1", "{00000000-0000-0000-0000-000000000000}"])
def test_an_id_that_is_none(web: Web, name: str, value: str) -> None:
    with pytest.raises(InvalidStatus) as caught, feed(web, f"?{name}={value}"):
        pass
    assert caught.value.response.status_code == 400
    body = json.loads(caught.value.response.body or b"")
    assert [each["field"] for each in body["details"]] == [name]


def test_a_scope_is_asked_for(web: Web) -> None:
    with pytest.raises(InvalidStatus) as caught, feed(web, key=key_of("shop", "orders:read")):
        pass
    assert caught.value.response.status_code == 403
