"""Bad weather over real HTTP: each server away in turn, and what the caller is told."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection

from devtools.testing.processes import child_environment, free_port
from devtools.testing.weather import Fault, Proxy, proxy_to
from devtools.testing.web import Answer, Web, web_process
from orders.models import Order
from restapi.tests.tables import row_counts

ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10}]}
SIMPLE = {"user_id": "u1", "amount": 42.5}
ANSWERED_WITHIN = 10.0  # seconds, whatever the database does


@pytest.fixture(scope="module")
def proxy(django_db_setup: None) -> Iterator[Proxy]:
    given = connection.settings_dict
    with proxy_to(given["HOST"], int(given["PORT"])) as started:
        yield started


@pytest.fixture(scope="module")
def web_of_proxy(proxy: Proxy) -> Iterator[Web]:
    port = connection.settings_dict["PORT"]
    url = child_environment()["DATABASE_URL"].replace(f":{port}/", f":{proxy.port}/")
    with web_process(DATABASE_URL=url) as started:
        yield started


@pytest.fixture
def web(web_of_proxy: Web, proxy: Proxy, transactional_db: None) -> Iterator[Web]:
    """A web process that reaches PostgreSQL by the proxy, with connections of this test: on older
    ones statements are prepared, and the proxy would not know them by their text."""
    proxy.set(Fault.AWAY)
    proxy.set(Fault.NONE)
    yield web_of_proxy
    proxy.set(Fault.NONE)


def assert_unavailable(answer: Answer, outcome: str) -> None:
    assert answer.status == 503, answer.body
    body = answer.json
    assert body.keys() == {"error", "details", "outcome"}
    assert (body["outcome"], body["details"]) == (outcome, [])
    assert outcome.replace("_", " ").split()[-1] in body["error"]
    assert int(answer.header("retry-after")) > 0


@pytest.mark.parametrize(
    ("fault", "outcome", "stored"),
    [
        # A hot path sends COMMIT along, and does not know how far the server came.
        (Fault.BEFORE_INSERT, "unknown" if settings.HOT_PATHS else "not_stored", 0),
        (Fault.BEFORE_COMMIT, "unknown", 0),
        (Fault.AFTER_COMMIT, "unknown", 1),
    ],
)
@pytest.mark.parametrize("body", [ORDER, SIMPLE])
def test_connection_lost_while_placing(
    web: Web, proxy: Proxy, fault: Fault, outcome: str, stored: int, body: dict[str, object]
) -> None:
    proxy.set(fault)
    assert_unavailable(web.post("/orders", body), outcome)
    assert proxy.happened.is_set()
    counts = row_counts()
    assert counts["orders"] == counts["order_changes"] == stored
    assert (
        counts["event_outbox"] == stored * 2
    )  # a line reserves stock, a simple order is told twice
    assert web.post("/orders", body).status in (200, 201)
    assert Order.objects.count() == stored + 1


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.BEFORE_COMMIT, "CREATED"), (Fault.AFTER_COMMIT, "PAID")]
)
def test_connection_lost_while_paying(web: Web, proxy: Proxy, fault: Fault, status: str) -> None:
    order_id = web.post("/orders", ORDER).json["orderId"]
    proxy.set(fault)
    assert_unavailable(web.post(f"/orders/{order_id}/pay"), "unknown")
    assert Order.objects.get().status == status
    assert web.get(f"/orders/{order_id}").json["status"] == status


def assert_unread(answer: Answer) -> None:
    """Of a read there is nothing to say about what was stored."""
    assert answer.status == 503, answer.body
    assert answer.json == {"error": "The database does not answer; try again.", "details": []}
    assert int(answer.header("retry-after")) > 0


@pytest.mark.parametrize("path", ["pay", "cancel"])
def test_a_server_that_goes_silent_at_commit(web: Web, proxy: Proxy, path: str) -> None:
    order_id = web.post("/orders", ORDER).json["orderId"]
    proxy.set(Fault.SILENT_AT_COMMIT)
    started = time.monotonic()
    body = {"reason": "none"} if path == "cancel" else None
    assert_unavailable(web.post(f"/orders/{order_id}/{path}", body), "unknown")
    assert proxy.happened.is_set()
    assert time.monotonic() - started < ANSWERED_WITHIN
    proxy.set(Fault.NONE)
    assert web.get(f"/orders/{order_id}").json["status"] == "CREATED"
    assert web.post(f"/orders/{order_id}/pay").status == 200


def test_database_away_and_back(web: Web, proxy: Proxy) -> None:
    order_id = web.post("/orders", ORDER).json["orderId"]
    before = row_counts()
    proxy.set(Fault.AWAY)
    started = time.monotonic()
    for body in (ORDER, SIMPLE):
        assert_unavailable(web.post("/orders", body), "not_stored")
    assert_unavailable(web.post(f"/orders/{order_id}/pay"), "not_stored")
    for path in ("/orders", f"/orders/{order_id}", "/analytics/summary"):
        assert_unread(web.get(path))
    assert web.post("/orders", {}).status == 400
    assert web.get("/health").json == {"status": "alive"}
    ready = web.get("/health/ready")
    assert (ready.status, ready.json) == (
        503,
        {
            "status": "not ready",
            "checks": {"database": "unhealthy", "kafka": "healthy", "redis": "healthy"},
        },
    )
    assert int(ready.header("retry-after")) > 0
    assert time.monotonic() - started < 10
    assert row_counts() == before
    proxy.set(Fault.NONE)
    assert web.post("/orders", ORDER).status == 201
    assert web.get("/health/ready").json["status"] == "ready"
    assert Order.objects.count() == 2


@pytest.fixture(scope="module")
def web_without_kafka_and_redis(django_db_setup: None) -> Iterator[Web]:
    with web_process(
        REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
    ) as started:
        yield started


@pytest.mark.usefixtures("transactional_db")
def test_orders_are_accepted_without_kafka_and_redis(web_without_kafka_and_redis: Web) -> None:
    web = web_without_kafka_and_redis
    web.post("/orders", ORDER)  # the first opens the connection to PostgreSQL
    started = time.monotonic()
    assert [web.post("/orders", ORDER).status for _ in range(20)] == [201] * 20
    assert web.post("/orders", SIMPLE).status == 200
    assert time.monotonic() - started < 5
    counts = row_counts()
    assert (counts["orders"], counts["event_outbox"]) == (22, 44)


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize(("query", "status"), [("", 200), ("?strict=0", 200), ("?strict=1", 503)])
def test_ready_without_kafka_and_redis(
    web_without_kafka_and_redis: Web, query: str, status: int
) -> None:
    answer = web_without_kafka_and_redis.get(f"/health/ready{query}")
    assert (answer.status, answer.json) == (
        status,
        {
            "status": "degraded",
            "checks": {"database": "healthy", "kafka": "unhealthy", "redis": "unhealthy"},
        },
    )
    assert bool(answer.header("retry-after")) == (status == 503)
    assert web_without_kafka_and_redis.get("/health").status == 200
