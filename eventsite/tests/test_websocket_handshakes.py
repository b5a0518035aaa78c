"""The gateway around WebSockets: which handshakes open a socket, and which are refused, on a real process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import redis
from django.conf import settings
from websockets.exceptions import InvalidStatus

from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.web import Web, web_process
from eventsite.tests.socket_clients import (
    NEVER,
    SETTINGS,
    bearer,
    code_of,
    lines,
    make,
    metric,
    opened,
    refused,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def strict_of_module(django_db_setup: None) -> Iterator[Web]:
    """A process that requires keys."""
    given = {
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "API_KEYS_REQUIRED": "1",
        "LOG_LEVEL": "INFO",
        "WEBSOCKETS_PER_CALLER": "3",
        "WEBSOCKET_SEND_SECONDS": "1",
        "WEBSOCKET_ORIGINS": "https://Elsewhere.example:8443",
    }
    with web_process(**given) as web:
        yield web


@pytest.fixture
def web(strict_of_module: Web, transactional_db: None) -> Web:
    return strict_of_module


# Opening


@pytest.mark.parametrize("way", ["Authorization", "X-API-Key", "subprotocol"])
def test_the_key_comes_by_header_or_as_a_browser_can_send_it(web: Web, way: str) -> None:
    key = make("shop-7").key
    ways: dict[str, dict[str, Any]] = {
        "Authorization": {"headers": bearer(key)},
        "X-API-Key": {"headers": {"X-API-Key": key}},
        "subprotocol": {"subprotocols": ["bearer", key], "origin": "https://shop.example"},
    }
    options = ways[way]
    with opened(web, "/ws/obey/a?x=1", **options) as client:
        told = json.loads(client.recv(timeout=PATIENCE))
        assert (told["name"], told["caller"]) == ("a", "shop-7")
        assert key not in json.dumps(told)
        assert told["subprotocols"] == []
        assert client.subprotocol == ("bearer" if way == "subprotocol" else None)
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "you said hello"
    assert key not in web.process.log.read_text()


def test_the_consumer_has_the_ids_that_are_answered(web: Web) -> None:
    with opened(web, "/ws/obey/a", headers=bearer(make().key) | {"X-Request-ID": "r-1"}) as client:
        assert json.loads(client.recv(timeout=PATIENCE))["correlation_id"] == "r-1"
        assert client.response is not None
        assert client.response.headers["x-request-id"] == "r-1"
        assert client.response.headers["traceparent"].startswith("00-")


def test_one_line_at_open_and_one_at_close(web: Web) -> None:
    name = "lines-of-this-one"
    headers = bearer(make("shop").key) | {"X-Request-ID": "r-2"}
    with opened(web, f"/ws/obey/{name}?secret=1", headers=headers) as client:
        client.recv(timeout=PATIENCE)
        client.send("one")
        client.recv(timeout=PATIENCE)
        assert settles(lambda: bool(lines(web, "websocket_opened", path=f"/ws/obey/{name}")))
        assert lines(web, "websocket_closed", path=f"/ws/obey/{name}") == []
    assert settles(lambda: bool(lines(web, "websocket_closed", path=f"/ws/obey/{name}")))
    [start] = lines(web, "websocket_opened", path=f"/ws/obey/{name}")
    [end] = lines(web, "websocket_closed", path=f"/ws/obey/{name}")
    for line in (start, end):
        assert (line["route"], line["caller"]) == ("ws/obey/<str:name>", "shop")
        assert line["correlation_id"] == "r-2"
        assert line["trace_id"] == start["trace_id"]
    assert (end["code"], end["sent"], end["received"]) == (1000, 2, 1)
    assert end["seconds"] > 0
    assert "code" not in start
    assert "secret=1" not in web.process.log.read_text()


def test_metrics_by_pattern(web: Web) -> None:
    path = "ws/obey/<str:name>"
    key = make().key

    def counted() -> list[float]:
        return [
            metric(web, "websockets_open", path=path),
            metric(web, "websockets_opened_total", path=path),
            metric(web, "websockets_closed_total", path=path, code="1000"),
            metric(web, "websockets_closed_total", path=path, code="other"),
            metric(web, "websocket_messages_total", path=path, direction="received"),
            metric(web, "websocket_messages_total", path=path, direction="sent"),
            metric(web, "http_requests_total", method="GET", path=path, status="403"),
        ]

    assert settles(lambda: counted()[0] == 0)  # those of the tests before
    before = counted()
    with opened(web, "/ws/obey/a", key) as client:
        client.recv(timeout=PATIENCE)
        assert counted()[0] == 1
    refused(web, "/ws/obey/close", 403, key)
    with opened(web, "/ws/obey/a", key) as client:
        client.send("close")
        assert code_of(client) == 4001
    assert settles(lambda: counted()[0] == 0)
    added = [after - was for after, was in zip(counted(), before, strict=True)]
    assert added == [0, 2, 1, 1, 1, 2, 1]


# Refused before it is open


def test_without_a_key_nothing_opens(web: Web) -> None:
    assert "Send an API key" in refused(web, "/ws/obey/a", 401)["error"]
    assert "Send an API key" in refused(web, "/ws/nothing", 401)["error"]
    assert "unknown, expired" in refused(web, "/ws/obey/a", 401, NEVER)["error"]
    offers: list[Any] = [["bearer"], ["bearer", NEVER]]
    for offered in offers:
        body = refused(web, "/ws/obey/a", 401, subprotocols=offered)
        assert "unknown, expired" in body["error"]


def test_keys_that_differ(web: Web) -> None:
    one, other = make("a").key, make("b").key
    offered: Any = ["bearer", other]
    assert "different keys" in refused(web, "/ws/obey/a", 401, one, subprotocols=offered)["error"]
    headers = {"X-API-Key": one}
    refused(web, "/ws/obey/a", 401, headers=headers, subprotocols=offered)


def test_a_key_in_the_address_is_refused_also_beside_a_good_one(web: Web) -> None:
    key = make().key
    for query in (f"?token={key}", f"?since=1&x={NEVER}"):
        body = refused(web, f"/ws/obey/a{query}", 400, key)
        assert body["details"][0]["field"] == "query"
    assert key not in web.process.log.read_text()


def test_a_scope_is_asked_for(web: Web) -> None:
    body = refused(web, "/ws/obey/a", 403, make("shop", "orders:write").key)
    assert "orders:read" in body["error"]


def test_a_path_that_nobody_declares(web: Web) -> None:
    for path in ("/ws/nothing", "/orders", "/ws/obey/", "/"):
        assert path in refused(web, path, 404, make(f"of-{len(path)}").key)["error"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://shop.example", True),
        ("http://SHOP.example:3000", True),
        ("https://elsewhere.example:8443", True),
        ("https://elsewhere.example", False),
        ("http://elsewhere.example:8443", False),
        ("https://shop.example.evil.example", False),
        ("https://evil.example", False),
        ("file://shop.example", False),
        ("null", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_origin(web: Web, origin: Any, allowed: bool) -> None:
    headers = bearer(make().key) | ({} if origin is None else {"Origin": origin})
    if allowed:
        with opened(web, "/ws/obey/a", headers=headers) as client:
            client.recv(timeout=PATIENCE)
    else:
        assert "origin" in refused(web, "/ws/obey/a", 403, headers=headers)["error"]


def test_what_a_consumer_refuses(web: Web) -> None:
    key = make().key
    body = refused(web, "/ws/obey/bad?since=x", 400, key)
    assert body["error"] == "The query is not valid."
    assert body["details"] == [{"field": "since", "message": "Is no number."}]
    refused(web, "/ws/obey/close", 403, key)
    refused(web, "/ws/obey/full", 503, key)
    assert refused(web, "/ws/obey/raise", 500, key)["error"] == "Internal error."
    assert "before it is open" in json.dumps(lines(web, "unhandled_error"))
    with opened(web, "/ws/obey/a", key) as client:
        client.recv(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Sec-WebSocket-Version: 13\r\n", b"400"),
        (b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"400"),
        (b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", b"400"),
    ],
)
def test_a_malformed_handshake_is_refused_in_json(web: Web, head: bytes, status: bytes) -> None:
    with web.socket() as raw:
        raw.sendall(
            b"GET /ws/obey/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + head
            + b"\r\n"
        )
        answer, _, body = raw.makefile("rb").read().partition(b"\r\n\r\n")
    assert answer.split()[1] == status, answer
    assert b"application/json" in answer
    assert json.loads(body).keys() == {"error", "details"}


def test_a_limit_of_open_sockets_for_each_caller(web: Web) -> None:
    """Three here; also when all come at once. A place that is left is free again."""
    one, other = make("one").key, make("other").key
    with ExitStack() as stack:
        mine = [stack.enter_context(opened(web, "/ws/obey/a", one)) for _ in range(3)]
        assert "limit is 3" in refused(web, "/ws/obey/a", 429, one)["error"]
        theirs = stack.enter_context(opened(web, "/ws/obey/a", other))
        assert json.loads(theirs.recv(timeout=PATIENCE))["caller"] == "other"
        mine[0].close()

        def opens() -> bool:
            with suppress(InvalidStatus):
                stack.enter_context(opened(web, "/ws/obey/a", one))
                return True
            return False

        assert settles(opens)
        refused(web, "/ws/obey/a", 429, one)


def test_a_handshake_counts_towards_the_rate() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL
    ) as client:  # a neighbour may have emptied the bucket
        for bucket in client.scan_iter("rate_limit:*"):
            client.delete(bucket)
    with web_process(DJANGO_SETTINGS_MODULE=SETTINGS, RATE_LIMIT="1/h burst 2") as web:
        for _ in range(2):
            with opened(web, "/ws/obey/a") as client:
                assert json.loads(client.recv(timeout=PATIENCE))["caller"] == "anonymous"
        assert "limit is 1/h" in refused(web, "/ws/obey/a", 429)["error"]
