"""The limit per caller over real HTTP, hot paths on and off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import redis
from django.conf import settings

from apikeys import services
from devtools.testing.processes import free_port
from devtools.testing.web import Web, web_process
from eventsite.tests.test_http_gateway import ids, metric
from eventsite.tests.test_http_keys import bearer
from orders.models import Order

SIMPLE = {"user_id": "u1", "amount": 42.5}
BURST = 20
LIMIT = f"1/h burst {BURST}"  # nothing comes back during a test
LIMITED = {"RATE_LIMIT": LIMIT, "RATE_LIMIT_PATIENCE": "5"}  # also on a busy machine
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module", params=["on", "off"], ids=["hot paths", "Django"])
def limited_of_module(request: pytest.FixtureRequest, django_db_setup: None) -> Iterator[Web]:
    given = LIMITED | {"HOT_PATHS": request.param, "TRUSTED_PROXIES": "1"}
    with web_process(**given) as started:
        yield started


@pytest.fixture
def limited(limited_of_module: Web, transactional_db: None) -> Web:
    """Its buckets full."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for bucket in client.scan_iter("rate_limit:*"):
            client.delete(bucket)
    return limited_of_module


def key_of(name: str) -> str:
    scopes = ["orders:read", "orders:write"]
    return services.create_key(name=name, scopes=scopes, by="test", at=datetime.now(UTC)).key


def test_of_many_parallel_requests_exactly_the_burst_is_let_through(limited: Web) -> None:
    sent = bearer(key_of("shop"))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: limited.post("/orders", SIMPLE, sent), range(60)))
    assert Counter(answer.status for answer in answers) == {200: BURST, 429: 60 - BURST}
    assert Order.objects.count() == BURST
    refused = next(answer for answer in answers if answer.status == 429)
    assert 3500 < int(refused.header("retry-after")) <= 3600
    assert refused.json.keys() == {"error", "details"}
    assert LIMIT in refused.json["error"]
    assert all(ids(refused))
    assert refused.header("x-content-type-options") == "nosniff"


def test_callers_are_limited_apart(limited: Web) -> None:
    one, other = bearer(key_of("a")), bearer(key_of("b"))
    statuses = [limited.get("/orders", **one).status for _ in range(BURST + 1)]
    assert statuses == [200] * BURST + [429]
    assert limited.get("/orders", **other).status == 200
    assert limited.get("/orders").status == 200


def test_without_a_key_the_address_counts(limited: Web) -> None:
    """As the one trusted proxy tells it; what stands before that is the client's own invention."""
    statuses = [
        limited.get("/orders", **{"X-Forwarded-For": f"9.9.9.{number}, 1.2.3.4"}).status
        for number in range(BURST + 1)
    ]
    assert statuses == [200] * BURST + [429]
    assert limited.get("/orders", **{"X-Forwarded-For": "1.2.3.5"}).status == 200


def test_health_and_metrics_are_never_limited(limited: Web) -> None:
    for path in ("/health", "/metrics"):
        assert {limited.get(path).status for _ in range(BURST + 5)} == {200}
    assert limited.get("/orders").status == 200


def test_the_limit_is_counted_by_route_and_logged(limited: Web) -> None:
    before = metric(limited, "GET", "orders/<str:order_id>", "429")
    for _ in range(BURST + 3):
        limited.get("/orders/x")
    assert metric(limited, "GET", "orders/<str:order_id>", "429") == before + 3


def test_a_refused_body_is_not_read(limited: Web) -> None:
    """Who is over the limit cannot make the process hold a megabyte."""
    for _ in range(BURST):
        limited.get("/orders")
    with limited.socket() as raw:
        raw.sendall(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_without_redis_nobody_is_refused() -> None:
    with web_process(RATE_LIMIT=LIMIT, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0") as web:
        answers = [web.post("/orders", SIMPLE) for _ in range(BURST + 5)]
        assert {answer.status for answer in answers} == {200}
        lines = web.get("/metrics").body.decode().splitlines()
        [counted] = [line for line in lines if line.startswith("rate_limit_failed_open_total ")]
        assert float(counted.split()[1]) == BURST + 5


def test_a_limit_that_cannot_be_read_stops_the_start() -> None:
    with (
        pytest.raises(AssertionError, match="write it like 100/s burst 200"),
        web_process(RATE_LIMIT="lots"),
    ):
        pass


def test_without_the_setting_there_is_no_limit(web: Web) -> None:
    assert {web.get("/orders").status for _ in range(BURST + 5)} == {200}
    assert json.loads(web.get("/orders").body) == []
