"""Each caller of the API of notifications has their own, and a walk through all of it finds what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.db import connection

from apikeys import services
from devtools.testing.web import JSON, Web, web_process
from eventsite.tests.notification_requests import (
    API,
    BATCH,
    NOTIFICATIONS,
    TEMPLATE,
    TEMPLATES,
    walk,
)
from notifications.tests.samples import SMS, failed
from restapi.tests.tables import row_counts


@pytest.fixture(scope="module")
def strict_of_module(django_db_setup: None) -> Iterator[Web]:
    with web_process(API_KEYS_REQUIRED="1") as started:
        yield started


@pytest.fixture
def strict(strict_of_module: Web, transactional_db: None) -> Web:
    return strict_of_module


SENDS = ("notifications:read", "notifications:write", "templates:write")


def key_of(name: str, *scopes: str) -> dict[str, str]:
    new = services.create_key(
        name=name, scopes=scopes or SENDS, expires_at=None, by="test", at=datetime.now(UTC)
    )
    return {"Authorization": f"Bearer {new.key}"}


def test_everybody_has_their_own(strict: Web) -> None:
    shop, bank = key_of("shop"), key_of("bank")
    support = key_of("support", *SENDS, "notifications:all")
    reader = key_of("reader", "notifications:read")
    batch = strict.post(BATCH, {"notifications": [SMS]}, shop).json
    id_, batch_id = batch["notifications"][0]["id"], batch["batch"]["id"]
    template = strict.post(TEMPLATES, TEMPLATE, shop).json["id"]
    [dead] = failed(caller="shop")
    seen = (
        ("GET", f"{NOTIFICATIONS}/{id_}"),
        ("GET", f"{NOTIFICATIONS}/{id_}/attempts"),
        ("GET", f"{API}/batches/{batch_id}"),
        ("GET", f"{TEMPLATES}/{template}"),
        ("POST", f"{TEMPLATES}/{template}/preview"),
    )
    changed = (
        ("POST", f"{NOTIFICATIONS}/{dead}/retry"),
        ("PATCH", f"{NOTIFICATIONS}/{id_}/cancel"),
        ("PATCH", f"{API}/batches/{batch_id}/cancel"),
        ("DELETE", f"{TEMPLATES}/{template}"),
    )

    def status(method: str, path: str, key: dict[str, str]) -> int:
        body = b'{"variables": {"Name": "Ann"}}' if method == "POST" else None
        return strict.request(method, path, body, JSON | key).status

    before = row_counts()
    for method, path in (*seen, *changed):
        assert status(method, path, bank) == 404, path
    for method, path in changed:
        assert status(method, path, reader) == 403, path
    assert row_counts() == before
    by_template = SMS | {"template_id": template, "template_variables": {"Name": "Ann"}}
    assert strict.post(NOTIFICATIONS, by_template, bank).status == 400
    assert strict.post(NOTIFICATIONS, by_template, support).status == 201
    for key, count in ((shop, 2), (bank, 0), (support, 3)):
        assert len(strict.get(NOTIFICATIONS, **key).json["data"]) == count
    for method, path in seen:
        assert status(method, path, shop) == status(method, path, support) == 200
    for method, path in changed:
        assert status(method, path, support) in (200, 204), path
    assert strict.post(NOTIFICATIONS, SMS, reader).status == 403
    assert strict.post(TEMPLATES, TEMPLATE, key_of("sender", "notifications:write")).status == 403


def test_the_walk_through_the_api(web: Web) -> None:
    """Twice on one database; deliveries are waited for where there are senders."""
    for _ in range(2):
        run = walk(web)
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.endswith("All as it should be.\n")


def test_the_walk_finds_what_is_wrong(web: Web) -> None:
    """Counts that do not add up: a row of the batch is missing behind its back."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE RULE lost AS ON INSERT TO notifications WHERE new.recipient = 'token'"
            " DO INSTEAD NOTHING"
        )
    try:
        run = walk(web)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP RULE lost ON notifications")
    assert run.returncode == 1
    assert "its counts add up" in run.stderr
