"""What the gateway does for every request, over real HTTP: ids, metrics, odd methods and clients."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from devtools.testing.patience import PATIENCE
from devtools.testing.processes import get_status
from devtools.testing.web import Answer, Web, web_process
from orders.models import Order
from outbox.models import OutboxEvent
from restapi.tests.tables import row_counts

SIMPLE = {"user_id": "u1", "amount": 42.5}
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"


def metric(web: Web, method: str, path: str, status: str) -> float:
    """How often such a request was answered."""
    wanted = f'http_requests_total{{method="{method}",path="{path}",status="{status}"}} '
    lines = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


# Ids


def ids(answer: Answer) -> tuple[str, str]:
    return answer.header("x-request-id"), answer.header("x-correlation-id")


def test_ids_are_made(web: Web) -> None:
    answer = web.post("/orders", SIMPLE)
    request_id, correlation_id = ids(answer)
    assert request_id == correlation_id
    assert UUID(correlation_id)
    assert TRACEPARENT.fullmatch(answer.header("traceparent"))
    stored = set(OutboxEvent.objects.values_list("correlation_id", "traceparent"))
    assert stored == {(correlation_id, answer.header("traceparent"))}
    assert web.post("/orders", SIMPLE).header("x-request-id") != request_id


@pytest.mark.parametrize(
    ("sent", "request_id", "correlation_id"),
    [
        ({"X-Request-ID": "r-1"}, "r-1", "r-1"),
        ({"X-Correlation-ID": "c-1"}, "c-1", "c-1"),
        ({"X-Request-ID": "r-1", "X-Correlation-ID": "c-1"}, "r-1", "c-1"),
        ({"X-Request-ID": "r-1", "X-Correlation-ID": "b a d"}, "r-1", "r-1"),
        ({"X-Request-ID": "b a d", "X-Correlation-ID": "c-1"}, "c-1", "c-1"),
        ({"X-Request-ID": "~" * 128}, "~" * 128, "~" * 128),
    ],
)
def test_ids_are_taken(
    web: Web, sent: dict[str, str], request_id: str, correlation_id: str
) -> None:
    answer = web.post("/orders", SIMPLE, sent)
    assert ids(answer) == (request_id, correlation_id)
    stored = set(OutboxEvent.objects.values_list("correlation_id", flat=True))
    assert stored == {correlation_id}


@pytest.mark.parametrize("bad", ["", " ", "a b", "é", "a\tb", "x" * 129, '{"a": "b c"}'])
def test_malformed_ids_are_replaced(refusing_web: Web, bad: str) -> None:
    request_id, correlation_id = ids(refusing_web.get("/health", **{"X-Request-ID": bad}))
    assert request_id == correlation_id != bad
    assert UUID(request_id)


@pytest.mark.parametrize("flags", ["00", "01"])
def test_trace_is_taken(web: Web, flags: str) -> None:
    sent = f"00-{TRACE_ID}-{SPAN_ID}-{flags}"
    answered = web.post("/orders", SIMPLE, {"traceparent": sent}).header("traceparent")
    assert TRACEPARENT.fullmatch(answered)
    version, trace_id, span_id, answered_flags = answered.split("-")
    assert (version, trace_id, answered_flags) == ("00", TRACE_ID, flags)
    assert span_id != SPAN_ID
    assert set(OutboxEvent.objects.values_list("traceparent", flat=True)) == {answered}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
    ],
)
def test_malformed_trace_is_replaced(refusing_web: Web, bad: str) -> None:
    answered = refusing_web.get("/health", traceparent=bad).header("traceparent")
    assert TRACEPARENT.fullmatch(answered)
    assert TRACE_ID not in answered


@pytest.mark.parametrize("path", ["/nothing", "/orders/no-uuid", "/health", "/metrics"])
def test_every_answer_has_ids(refusing_web: Web, path: str) -> None:
    answer = refusing_web.get(path, **{"X-Request-ID": "r-1"})
    assert ids(answer) == ("r-1", "r-1")
    assert TRACEPARENT.fullmatch(answer.header("traceparent"))


def test_one_log_line_a_request(db: None) -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "eventsite.settings.local", "LOG_LEVEL": "INFO"}
    with web_process(**settings) as web:
        trace = f"00-{TRACE_ID}-{SPAN_ID}-01"
        web.get("/orders/no-uuid?x=1", **{"X-Request-ID": "r-1", "traceparent": trace})
        web.get("/health")
        web.process.stop()
        lines = [
            json.loads(line) for line in web.process.log.read_text().splitlines() if line[0] == "{"
        ]
    asked = [line for line in lines if line["event"] == "request"]
    *_, health = asked  # those before are the start's, which waits until there is an answer
    assert (health["path"], health["status"], health["route"]) == ("/health", 200, "health")
    [line] = [line for line in asked if line["route"] != "health"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/orders/no-uuid", 404)
    assert (line["correlation_id"], line["trace_id"]) == ("r-1", TRACE_ID)
    assert (line["caller"], line["route"]) == ("anonymous", "orders/<str:order_id>")
    assert line["duration_ms"] > 0
    assert line["span_id"] != SPAN_ID


# Health and metrics


def test_health(refusing_web: Web) -> None:
    assert refusing_web.get("/health").json == {"status": "alive"}


@pytest.mark.parametrize("query", ["", "?strict=1"])
def test_ready(refusing_web: Web, query: str) -> None:
    answer = refusing_web.get(f"/health/ready{query}")
    assert (answer.status, answer.json) == (
        200,
        {
            "status": "ready",
            "checks": {"database": "healthy", "kafka": "healthy", "redis": "healthy"},
        },
    )


def test_metrics_name_the_route_and_never_the_path(refusing_web: Web) -> None:
    order_id, path = str(uuid4()), "orders/<str:order_id>"
    before = metric(refusing_web, "GET", path, "404")
    for _ in range(3):
        refusing_web.get(f"/orders/{order_id}")
    assert metric(refusing_web, "GET", path, "404") == before + 3
    assert order_id not in refusing_web.get("/metrics").body.decode()


def test_metrics_of_what_nobody_serves_are_one_label(refusing_web: Web) -> None:
    before = metric(refusing_web, "GET", "unknown", "404")
    odd_before = metric(refusing_web, "OTHER", "orders", "405")
    for number, method in enumerate(("PURGE", "MKCOL", "PROPFIND")):
        refusing_web.get(f"/nothing/{number}")
        refusing_web.request(method, "/orders")
    assert metric(refusing_web, "GET", "unknown", "404") == before + 3
    assert metric(refusing_web, "OTHER", "orders", "405") == odd_before + 3


def test_metrics_say_how_long(refusing_web: Web) -> None:
    refusing_web.get("/orders")
    metrics = refusing_web.get("/metrics")
    assert metrics.header("content-type").startswith("text/plain")
    assert 'http_request_duration_seconds_bucket{le="0.1",method="GET",path="orders"}' in (
        metrics.body.decode()
    )


# Methods and clients


def test_of_requests_in_one_go_the_first_is_answered(refusing_web: Web) -> None:
    """And the client is told to send the others again on another connection."""
    paths = ["/orders", "/health", "/nothing", "/orders?limit=0"]
    with refusing_web.socket() as raw:
        requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: {path}\r\n" for path in paths]
        raw.sendall(("\r\n".join(requests) + "\r\n").encode())
        answers = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["200"]
    assert re.findall(r"x-request-id: (\S+)", answers) == paths[:1]
    assert "connection: close" in answers


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 00000000000000000000027\r\n", 200),
        (b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000000\r\n", 413),
        (b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000000000000000\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_what_a_second_reading_of_the_head_stumbled_over(
    web: Web, head: bytes, status: int
) -> None:
    with web.socket() as raw:
        raw.sendall(head + b'Content-Type: application/json\r\n\r\n{"user_id":"u","amount":12}')
        assert raw.recv(65536).startswith(b"HTTP/1.1 %d " % status)
    assert Order.objects.count() == (status == 200)
    assert "Traceback" not in web.process.log.read_text()


def test_many_at_once(web: Web) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: web.post("/orders", SIMPLE), range(200)))
    assert {answer.status for answer in answers} == {200}
    told = {answer.json["order_id"] for answer in answers}
    assert len(told) == 200
    assert {str(order_id) for order_id in Order.objects.values_list("id", flat=True)} == told
    assert OutboxEvent.objects.count() == 400
    correlations = OutboxEvent.objects.values_list("correlation_id", flat=True)
    assert set(correlations) == {answer.header("x-request-id") for answer in answers}


def test_one_winner_of_many_payments(web: Web) -> None:
    body = {"customerId": "c", "items": [{"productId": "p", "quantity": 1, "price": 1}]}
    order_id = web.post("/orders", body).json["orderId"]
    start = threading.Barrier(16)

    def pay(_: int) -> int:
        start.wait(PATIENCE)
        return web.post(f"/orders/{order_id}/pay").status

    with ThreadPoolExecutor(16) as pool:
        statuses = sorted(pool.map(pay, range(16)))
    assert statuses == [200] + [409] * 15
    assert len(web.get(f"/orders/{order_id}").json["history"]) == 2


@pytest.mark.parametrize(
    "length",
    [b"Content-Length: 1000", b"Transfer-Encoding: chunked"],
)
def test_a_client_that_hangs_up_in_its_body_stores_nothing(
    refusing_web: Web, length: bytes
) -> None:
    before = row_counts()
    with refusing_web.socket() as raw:
        raw.sendall(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        raw.sendall(length + b'\r\n\r\n26\r\n{"user_id": "u1", "amount": 1, "x": 12')
    assert refusing_web.get("/orders").status == 200
    assert get_status(f"http://127.0.0.1:{refusing_web.port}/health") == 200
    assert row_counts() == before


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n"])
def test_what_is_no_http_is_refused(refusing_web: Web, request_: bytes) -> None:
    with refusing_web.socket() as raw:
        raw.sendall(request_)
        assert raw.recv(65536).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert get_status(f"http://127.0.0.1:{refusing_web.port}/health") == 200


def test_a_body_in_a_broken_coding_is_answered(refusing_web: Web) -> None:
    with refusing_web.socket() as raw:
        raw.sendall(
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
        )
        answer = raw.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"error":"The body is incomplete or malformed.' in answer
