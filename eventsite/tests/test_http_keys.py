"""API keys over real HTTP: who comes in, who does not, and how soon a change counts."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apikeys import services
from apikeys.models import ApiKey, make_key
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import child_environment
from devtools.testing.weather import Fault, Proxy, proxy_to
from devtools.testing.web import Answer, Web, web_process
from eventsite.tests.test_http_gateway import ids, metric
from orders.models import Order, OrderChange
from restapi.tests.tables import row_counts

SIMPLE = {"user_id": "u1", "amount": 42.5}
ALL = ("orders:read", "orders:write", "analytics:read")
UNTIL_REVOKED = 1.0  # seconds, the contract's
pytestmark = pytest.mark.django_db(transaction=True)


def make(name: str = "shop", *scopes: str, expires_at: datetime | None = None) -> services.NewKey:
    return services.create_key(
        name=name, scopes=scopes or ALL, expires_at=expires_at, by="test", at=datetime.now(UTC)
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module", params=["on", "off"], ids=["hot paths", "Django"])
def strict_of_module(
    request: pytest.FixtureRequest, django_db_setup: None
) -> Iterator[tuple[Web, Web]]:
    """Processes that require keys: two, because every one must see what changes."""
    given = {
        "API_KEYS_REQUIRED": "1",
        "HOT_PATHS": request.param,
        "LOG_LEVEL": "INFO",
    }
    with web_process(**given) as first, web_process(**given) as second:
        yield first, second


@pytest.fixture
def both(strict_of_module: tuple[Web, Web], transactional_db: None) -> tuple[Web, Web]:
    return strict_of_module


@pytest.fixture
def strict(both: tuple[Web, Web]) -> Web:
    return both[0]


def assert_refused(answer: Answer, status: int, word: str) -> None:
    """In the shape of all errors, with everything that every answer has."""
    assert answer.status == status, answer.body
    assert answer.json.keys() == {"error", "details"}
    assert (answer.json["details"], word in answer.json["error"]) == ([], True), answer.json
    request_id, correlation_id = ids(answer)
    assert request_id
    assert correlation_id
    assert answer.header("traceparent").startswith("00-")
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("x-frame-options") == "DENY"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/orders"),
        ("GET", "/orders"),
        ("GET", "/orders/x"),
        ("POST", "/orders/x/pay"),
        ("GET", "/analytics/summary"),
        ("GET", "/nothing"),
        ("OPTIONS", "/orders"),
        ("PURGE", "/orders"),
    ],
)
def test_without_a_key_nothing_is_answered(strict: Web, method: str, path: str) -> None:
    before = row_counts()
    body = json.dumps(SIMPLE).encode() if method == "POST" else None
    answer = strict.request(method, path, body, {"Content-Type": "application/json"})
    assert_refused(answer, 401, "Send an API key")
    assert answer.header("www-authenticate") == 'Bearer realm="api"'
    assert row_counts() == before


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
def test_health_and_metrics_are_open(strict: Web, path: str) -> None:
    assert strict.get(path).status == 200
    assert strict.get(path, **bearer("nonsense")).status == 200


def test_the_admin_has_its_own_login(strict: Web) -> None:
    answer = strict.get("/admin/")
    assert (answer.status, answer.header("location")) == (302, "/admin/login/?next=/admin/")
    assert strict.get("/admin/login/").status == 200


@pytest.mark.parametrize("header", ["bearer", "BEARER", "x-api-key"])
def test_a_key_comes_in_by_either_header_and_names_the_caller(strict: Web, header: str) -> None:
    key = make("shop-7").key
    sent = {"X-API-Key": key} if header == "x-api-key" else {"Authorization": f"{header} {key}"}
    answer = strict.post("/orders", SIMPLE, sent)
    assert answer.status == 200
    assert OrderChange.objects.get().actor == "shop-7"
    assert strict.get(f"/orders/{answer.json['order_id']}", **sent).status == 200


def test_the_caller_of_one_request_is_not_that_of_the_next(strict: Web) -> None:
    """On one connection, too."""
    keys = {name: make(name).key for name in ("a", "b")}
    connection_ = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=PATIENCE)
    for name in "abba":
        headers = bearer(keys[name]) | {"Content-Type": "application/json"}
        connection_.request("POST", "/orders", json.dumps(SIMPLE | {"user_id": name}), headers)
        assert connection_.getresponse().read()
    connection_.close()
    pairs = OrderChange.objects.values_list("order__customer_id", "actor")
    assert sorted(pairs) == [("a", "a"), ("a", "a"), ("b", "b"), ("b", "b")]


def test_both_headers_must_agree(strict: Web) -> None:
    one, other = make("a").key, make("b").key
    agreed = bearer(one) | {"X-API-Key": one}
    assert strict.get("/orders", **agreed).status == 200
    answer = strict.get("/orders", **bearer(one), **{"X-API-Key": other})
    assert_refused(answer, 401, "different keys")
    assert "invalid_token" in answer.header("www-authenticate")


@pytest.mark.parametrize("bad", ["", "x", "ek_00000000_" + "0" * 64, "é", "a" * 5000])
def test_unknown_keys(strict: Web, bad: str) -> None:
    make()
    answer = strict.get("/orders", **{"X-API-Key": bad})
    assert_refused(answer, 401, "unknown, expired or revoked")
    assert answer.header("www-authenticate") == 'Bearer realm="api", error="invalid_token"'


def test_basic_is_no_key(strict: Web) -> None:
    assert_refused(strict.get("/orders", Authorization="Basic eDp5"), 401, "Send an API key")


@pytest.mark.parametrize(
    ("scope", "allowed", "refused", "missing"),
    [
        ("orders:read", ("GET", "/orders"), ("POST", "/orders"), "orders:write"),
        ("orders:write", ("POST", "/orders"), ("GET", "/orders"), "orders:read"),
        ("orders:write", ("POST", "/orders/x/pay"), ("GET", "/orders/x"), "orders:read"),
        ("analytics:read", ("GET", "/analytics/summary"), ("GET", "/orders"), "orders:read"),
        ("orders:read", ("GET", "/orders"), ("GET", "/analytics/metrics"), "analytics:read"),
    ],
)
def test_scopes(
    strict: Web, scope: str, allowed: tuple[str, str], refused: tuple[str, str], missing: str
) -> None:
    sent = bearer(make("shop", scope).key) | {"Content-Type": "application/json"}
    body = json.dumps(SIMPLE).encode()
    before = row_counts()
    answer = strict.request(*refused, body, sent)
    assert_refused(answer, 403, missing)
    assert f'scope="{missing}"' in answer.header("www-authenticate")
    assert row_counts() == before
    assert strict.request(*allowed, body, sent).status in (200, 404)


def test_unknown_paths_and_methods_with_a_key(strict: Web) -> None:
    sent = bearer(make().key)
    assert strict.get("/nothing", **sent).status == 404
    answer = strict.request("PUT", "/orders", None, sent)
    assert (answer.status, bool(answer.header("allow"))) == (405, True)


def test_an_expired_key(strict: Web) -> None:
    new = make(expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert strict.get("/orders", **bearer(new.key)).status == 200
    ApiKey.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    time.sleep(UNTIL_REVOKED)
    assert strict.get("/orders", **bearer(new.key)).status == 401


def test_a_revoked_key_is_refused_by_every_process(both: tuple[Web, Web]) -> None:
    """Warm in both; a second after the COMMIT none of them takes it, and other keys still work."""
    gone, stays = make("gone"), make("stays")
    for web in both:
        assert web.get("/orders", **bearer(gone.key)).status == 200
    services.revoke_key(prefix=gone.row.prefix, by="test", at=datetime.now(UTC))
    time.sleep(UNTIL_REVOKED)
    for web in both:
        assert web.get("/orders", **bearer(gone.key)).status == 401
        assert web.post("/orders", SIMPLE, bearer(gone.key)).status == 401
        assert web.get("/orders", **bearer(stays.key)).status == 200
    assert not Order.objects.exists()


def test_a_new_key_works_at_once(both: tuple[Web, Web]) -> None:
    for number in range(5):
        sent = bearer(make(f"shop-{number}").key)
        assert [web.get("/orders", **sent).status for web in both] == [200, 200]


def test_rotation(strict: Web) -> None:
    old = make()
    now = datetime.now(UTC)
    new = services.rotate_key(prefix=old.row.prefix, grace=timedelta(hours=1), by="test", at=now)
    assert [strict.get("/orders", **bearer(each.key)).status for each in (old, new)] == [200, 200]
    strict.post("/orders", SIMPLE, bearer(new.key))
    assert OrderChange.objects.get().actor == "shop"


def test_last_use_is_noted(strict: Web) -> None:
    new = make()
    strict.get("/orders", **bearer(new.key))
    assert settles(lambda: ApiKey.objects.get().last_used_at is not None)


def test_refusals_are_counted_by_route(strict: Web) -> None:
    read_only = bearer(make("shop", "analytics:read").key)
    wanted = [("GET", "orders", "401"), ("GET", "orders/<str:order_id>", "403"),
              ("GET", "unknown", "401"), ("OTHER", "orders", "401")]  # fmt: skip
    before = [metric(strict, *each) for each in wanted]
    strict.get("/orders")
    strict.get("/orders/x", **read_only)
    strict.get("/orders/x/y/z")
    strict.request("PURGE", "/orders")
    assert [metric(strict, *each) for each in wanted] == [count + 1 for count in before]


def test_refusals_are_logged(strict: Web) -> None:
    key = make("shop", "orders:read").key
    mark = f"r-{os.urandom(8).hex()}"
    strict.post("/orders", SIMPLE, bearer(key) | {"X-Request-ID": mark})
    strict.get("/orders", **{"X-Request-ID": mark})
    strict.get("/orders", **bearer(key), **{"X-Request-ID": mark})

    def told() -> list[tuple[str, int, str, str]]:
        """A line is written once its answer is on the way."""
        text = strict.process.log.read_text().splitlines()
        lines = [json.loads(line) for line in text if mark in line and line.endswith("}")]
        return [(line["event"], line["status"], line["caller"], line["route"]) for line in lines]

    settles(lambda: len(told()) == 3)
    assert told() == [
        ("request", 403, "anonymous", "orders"),
        ("request", 401, "anonymous", "orders"),
        ("request", 200, "shop", "orders"),
    ]
    assert key not in strict.process.log.read_text()


# Where no key is required


def test_a_key_that_is_sent_is_checked_and_names_the_caller(web: Web) -> None:
    key = make("shop", "orders:write").key
    assert web.post("/orders", SIMPLE, bearer(key)).status == 200
    assert web.post("/orders", SIMPLE).status == 200
    assert set(OrderChange.objects.values_list("actor", flat=True)) == {"shop", "anonymous"}
    assert web.get("/orders", **bearer(make_key())).status == 401
    assert web.get("/orders", **bearer(key)).status == 403
    assert web.get("/orders").status == 200


def test_production_requires_keys() -> None:
    settings = {
        "DJANGO_SETTINGS_MODULE": "eventsite.settings.production",
        "DJANGO_SECRET_KEY": secrets.token_hex(32),
        "ALLOWED_HOSTS": "127.0.0.1",
        "WEBHOOK_URL": "https://acme.example/send",
    }
    key = make().key
    with web_process(**settings) as web:
        assert web.get("/orders").status == 401
        assert web.get("/orders", **bearer(key)).status == 200


# The database away


@pytest.fixture
def proxy(transactional_db: None) -> Iterator[Proxy]:
    given = connection.settings_dict
    with proxy_to(given["HOST"], int(given["PORT"])) as started:
        yield started


def test_known_keys_outlive_the_database_and_others_are_not_judged(proxy: Proxy) -> None:
    port = connection.settings_dict["PORT"]
    url = child_environment()["DATABASE_URL"].replace(f":{port}/", f":{proxy.port}/")
    known, other = make("a"), make("b")
    with web_process(DATABASE_URL=url, API_KEYS_REQUIRED="1") as web:
        assert web.get("/orders", **bearer(known.key)).status == 200
        proxy.set(Fault.AWAY)
        time.sleep(UNTIL_REVOKED)
        # In: the refusal is Django's, which cannot read the orders either; POST {} needs nothing.
        assert web.post("/orders", {}, bearer(known.key)).status == 400
        assert web.post("/orders", {}, bearer(other.key)).status == 400  # read with the others
        unknown = web.get("/orders", **bearer(make_key()))
        assert unknown.status == 503
        assert "stored" not in unknown.body.decode()  # a read stores nothing
        written = web.post("/orders", SIMPLE, bearer(make_key()))
        assert (written.status, written.json["outcome"]) == (503, "not_stored")
        assert int(unknown.header("retry-after")) > 0
        assert web.get("/orders", **bearer("nonsense")).status == 401
        assert "api_keys_unread_total " in web.get("/metrics").body.decode()
        proxy.set(Fault.NONE)
        services.revoke_key(prefix=known.row.prefix, by="test", at=datetime.now(UTC))
        time.sleep(UNTIL_REVOKED)
        assert web.get("/orders", **bearer(known.key)).status == 401


def test_an_idempotency_key_belongs_to_its_caller(strict: Web) -> None:
    shop, partner = make("shop").key, make("partner").key
    headers = [bearer(key) | {"Idempotency-Key": "same"} for key in (shop, partner, shop)]
    first, other, again = (strict.post("/orders", SIMPLE, each) for each in headers)
    assert {first.status, other.status, again.status} == {200}
    assert first.json["order_id"] != other.json["order_id"]
    assert (again.body, again.header("idempotent-replayed")) == (first.body, "true")
    assert Order.objects.count() == 2
