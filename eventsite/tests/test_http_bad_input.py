"""What every endpoint refuses over real HTTP: the right code, a sentence, nothing stored.

Bodies of POST /orders are in test_http_orders_refused.py.
"""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import pytest

from devtools.testing.web import JSON, Web, assert_error
from orders.models import Order
from restapi.tests.tables import row_counts

pytest_refused = pytest.mark.usefixtures("nothing_stored")

NOBODY = "01890000-0000-7000-8000-00000000dead"  # the same in every worker of a test run
ORDER = f"/orders/{NOBODY}"
READ = "GET, HEAD, OPTIONS"
ALLOWED = {
    "/orders": "GET, POST, HEAD, OPTIONS",
    ORDER: READ,
    f"{ORDER}/pay": "POST, OPTIONS",
    f"{ORDER}/ship": "POST, OPTIONS",
    f"{ORDER}/cancel": "POST, OPTIONS",
    "/analytics/summary": READ,
    "/analytics/metrics": READ,
    "/analytics/top-products": READ,
    "/health": READ,
    "/health/ready": READ,
    "/metrics": READ,
    "/openapi.json": READ,
}
PAGES = ("/swagger", "/swagger/", "/admin", "/static/admin/css/base.css")
BY_PATH = ALLOWED | dict.fromkeys(PAGES, READ)
WRONG = [
    (method, path)
    for path, allowed in BY_PATH.items()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE", "PROPFIND", "FOO")
    if method not in allowed
]


@pytest_refused
@pytest.mark.parametrize(("method", "path"), WRONG)
def test_wrong_method(refusing_web: Web, method: str, path: str) -> None:
    answer = refusing_web.request(method, path, b"{}", JSON)
    assert method in assert_error(answer, 405)["error"]
    assert set(answer.header("allow").split(", ")) == set(BY_PATH[path].split(", "))


@pytest_refused
@pytest.mark.parametrize("path", ALLOWED)
def test_options(refusing_web: Web, path: str) -> None:
    answer = refusing_web.request("OPTIONS", path)
    assert answer.status == 200
    assert set(answer.header("allow").split(", ")) == set(ALLOWED[path].split(", "))
    assert isinstance(answer.json, dict)


@pytest_refused
@pytest.mark.parametrize("path", [path for path in ALLOWED if "GET" in ALLOWED[path]])
def test_head_is_get_without_a_body(refusing_web: Web, path: str) -> None:
    answer, full = refusing_web.request("HEAD", path), refusing_web.get(path)
    assert (answer.status, answer.body) == (full.status, b"")
    assert answer.status == (404 if path == ORDER else 200)
    assert answer.header("content-type") == full.header("content-type")
    assert "html" not in answer.header("content-type")


@pytest_refused
@pytest.mark.parametrize("path", [path for path in ALLOWED if "POST" in ALLOWED[path]])
@pytest.mark.parametrize(
    "kind",
    [
        *("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"),
        *("*/*", "application/*", "text/json", "application/merge-patch+json"),
    ],
)
def test_wrong_content_type(refusing_web: Web, path: str, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = refusing_web.request("POST", path, b'{"user_id": "u1", "amount": 1}', headers)
    assert_error(answer, 415)


@pytest_refused
@pytest.mark.parametrize("path", [path for path in ALLOWED if "POST" in ALLOWED[path]])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_a_body_in_a_content_coding(refusing_web: Web, path: str, coding: str) -> None:
    body = gzip.compress(b'{"user_id": "u1", "amount": 1}')
    answer = refusing_web.request("POST", path, body, JSON | {"Content-Encoding": coding})
    assert "Content-Encoding" in assert_error(answer, 415)["error"]


@pytest_refused
def test_a_body_in_a_transfer_coding_that_is_not_known(refusing_web: Web) -> None:
    sent = b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    status, error = raw(refusing_web, b"POST /orders HTTP/1.1\r\nHost: x\r\n" + sent)
    assert (status, sorted(error)) == (501, ["details", "error"])


def raw(web: Web, request: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a request as it stands there."""
    with web.socket() as sent:
        sent.sendall(request)
        answer = http.client.HTTPResponse(sent)
        answer.begin()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
        return answer.status, json.loads(answer.read())


@pytest_refused
@pytest.mark.parametrize("path", ["/orders", "/analytics/summary", "/health", "/nothing"])
@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"Host:\r\n", b"Host: \r\n", b"Host: x\r\nHost: x\r\n", b"Host: x\r\nhost: y\r\n"),
        *(b"Host: a b\r\n", b"Host: http://x\r\n", b"Host: x:y\r\n", b"Host: u@x\r\n"),
        *(
            b"Host: x, y/\r\n",
            b"Host: [::1\r\n",
            b"Host: %zz\r\n",
            b"Host: \xff\r\n",
            b"Host: x/\r\n",
        ),
    ],
)
def test_without_one_valid_host(refusing_web: Web, path: str, host: bytes) -> None:
    """RFC 9112, 3.2."""
    request = f"GET {path} HTTP/1.1\r\n".encode() + host + b"\r\n"
    status, error = raw(refusing_web, request)
    assert (status, [detail["field"] for detail in error["details"]]) == (400, ["Host"])


@pytest_refused
@pytest.mark.parametrize(
    ("version", "host"),
    [
        *((b"1.1", host) for host in (b"x", b"x:", b"x:80", b"[::1]:80", b"my_shop.a-b", b"%41")),
        (b"1.0", b"x"),
        (b"1.0", b""),
    ],
)
def test_a_valid_host(refusing_web: Web, version: bytes, host: bytes) -> None:
    line = b"Host:" + host + b" \r\n" if host else b""
    status, _ = raw(refusing_web, b"GET /health HTTP/" + version + b"\r\n" + line + b"\r\n")
    assert status == 200


@pytest_refused
@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "Idempotency-Key", "Content-Type"])
@pytest.mark.parametrize("values", [("a", "b"), ("a", "a"), ("", "a")])
def test_a_header_given_twice(refusing_web: Web, name: str, values: tuple[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for value in values)
    request = f"POST {ORDER}/pay HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
    status, error = raw(refusing_web, request)
    assert (status, [detail["field"] for detail in error["details"]]) == (400, [name])


@pytest_refused
@pytest.mark.parametrize("verb", ["pay", "ship", "cancel"])
@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[]", b"null", b"0", b'"x"', b"nonsense", b"[" * 100_000),
        *(b'{"reason": NaN}', b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b"\xef\xbb\xbf{}"),
        '{"reason": "é"}'.encode("utf-16"),
    ],
)
def test_malformed_body_of_a_move(refusing_web: Web, verb: str, body: bytes) -> None:
    assert_error(refusing_web.request("POST", f"{ORDER}/{verb}", body, JSON), 400)


@pytest_refused
@pytest.mark.parametrize(
    "reason",
    ["1", "null", "true", "[]", "{}", '"\\u0000"', '"\\ud800"', json.dumps("r" * 1001)],
)
def test_bad_reason(refusing_web: Web, reason: str) -> None:
    body = f'{{"reason": {reason}}}'.encode()
    error = assert_error(refusing_web.request("POST", f"{ORDER}/cancel", body, JSON), 400)
    assert [detail["field"] for detail in error["details"]] == ["reason"]


LIMITS = [
    *("0", "-1", "abc", "1.5", "1e1", "%00", "NaN", "9" * 3000, "%D9%A1%00"),
    # what Python would read as a number, and no other client would write
    *("1_0", "%D9%A1", "%2B5", "%205", "5%0A", "5.0", "5."),
    # empty, and given twice
    *("", "1&limit=1", "1&limit=2", "&limit=1", "1&limit="),
]


@pytest_refused
@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/orders", "status=NEW", "status"),
        ("/orders", "status=created", "status"),
        ("/orders", "status=", "status"),
        ("/orders", "created_from=yesterday", "created_from"),
        ("/orders", "created_from=", "created_from"),
        ("/orders", "created_from=0", "created_from"),
        ("/orders", "created_from=2026-02-30T00:00:00Z", "created_from"),
        ("/orders", "created_to=2026-13-01T00:00:00Z", "created_to"),
        ("/orders", "created_to=2026-03-11T25:00:00Z", "created_to"),
        ("/orders", "created_to=9999-12-31T23:59:59-14:00", "created_to"),
        ("/orders", "created_to=0001-01-01T00:00:00%2B14:00", "created_to"),
        ("/orders", "created_to=%00", "created_to"),
        ("/orders", "created_from=2026-03-11T22:00:00%2B12:99", "created_from"),
        ("/orders", "created_to=2026-03-11T24:00:00Z", "created_to"),
        # of ISO 8601, and none of RFC 3339
        ("/orders", "created_from=2026-W11-3", "created_from"),
        ("/orders", "created_from=20260311T220000Z", "created_from"),
        ("/orders", "created_from=2026-03-11T22", "created_from"),
        ("/orders", "created_to=2026-3-1T2:0:0Z", "created_to"),
        ("/orders", "created_to=2026-03-11T22:00:00Z%0A", "created_to"),
        ("/orders", "created_to=", "created_to"),
        ("/orders", "cursor=", "cursor"),
        ("/orders", "cursor=abc", "cursor"),
        ("/orders", "cursor=" + "A" * 31, "cursor"),
        ("/orders", "cursor=" + "A" * 32 + "%00", "cursor"),
        ("/orders", "cursor=" + "A" * 30 + "%2B%2F", "cursor"),
        *(("/orders", "cursor=" + "A" * 32 + end, "cursor") for end in ("=", "==", "%20", "%0A")),
        ("/orders", "cursor=%20" + "A" * 32, "cursor"),
        ("/orders", "cursor=f" + "_" * 31, "cursor"),
        ("/orders", "cursor=" + "_" * 3000, "cursor"),
        ("/orders", "customerId=", "customerId"),
        ("/orders", "customerId=" + "x" * 256, "customerId"),
        ("/orders", "customerId=%00", "customerId"),
        ("/orders", "customerId=a&customerId=b", "customerId"),
        ("/orders", "status=PAID&status=CREATED", "status"),
        ("/orders", "limit=101", "limit"),
        *(("/orders", f"limit={limit}", "limit") for limit in LIMITS),
        ("/analytics/top-products", "limit=101", "limit"),
        *(("/analytics/top-products", f"limit={limit}", "limit") for limit in LIMITS),
        ("/analytics/metrics", "limit=1001", "limit"),
        *(("/analytics/metrics", f"limit={limit}", "limit") for limit in LIMITS),
        ("/analytics/metrics", "metric_name=nothing", "metric_name"),
        ("/analytics/metrics", "metric_name=%00", "metric_name"),
        ("/analytics/metrics", "metric_name=", "metric_name"),
        ("/analytics/metrics", "dimension=", "dimension"),
        ("/analytics/metrics", "dimension=a&dimension=b", "dimension"),
        ("/analytics/metrics", "dimension=%00", "dimension"),
        ("/analytics/metrics", "dimension=" + "d" * 256, "dimension"),
    ],
)
def test_bad_query(refusing_web: Web, path: str, query: str, field: str) -> None:
    error = assert_error(refusing_web.get(f"{path}?{query}"), 400)
    assert [detail["field"] for detail in error["details"]] == [field]
    assert field in error["error"]


@pytest_refused
@pytest.mark.parametrize("path", ["/orders", "/analytics/metrics", "/analytics/top-products"])
def test_a_query_of_too_many_parameters(refusing_web: Web, path: str) -> None:
    """Django stops reading at 1,000."""
    assert_error(refusing_web.get(f"{path}?{'x=1&' * 1001}"), 400)


@pytest_refused
@pytest.mark.parametrize(
    "moment",
    [
        *("2026-03-11", "2026-03-11T22:00:00", "2026-03-11T22:00:00Z", "2026-03-11t22:00:00z"),
        *("2026-03-11T22:00:00.123456789Z", "2026-03-11T22:00:00-01:30", "2026-03-11%2022:00:00Z"),
    ],
)
def test_times_of_rfc_3339_are_taken(refusing_web: Web, moment: str) -> None:
    for name in ("created_from", "created_to"):
        assert refusing_web.get(f"/orders?{name}={moment}").status == 200


@pytest_refused
@pytest.mark.parametrize(
    "query", ["customerId=%ff%fe", "status=PAID&%00=1", "%ff=1", "x=" + "y" * 5000]
)
def test_odd_queries_are_answered(refusing_web: Web, query: str) -> None:
    """Bytes that are no UTF-8 stand for a character that nobody has; unknown parameters are ignored."""
    answer = refusing_web.get(f"/orders?{query}")
    assert (answer.status, answer.json) == (200, [])


class TestAnOrderThatIsThere:
    """A move that is asked for in the wrong way does not happen."""

    @pytest.fixture
    def order_id(self, web: Web) -> str:
        body = {"user_id": "u1", "amount": 1}
        return str(web.post("/orders", body).json["order_id"])

    @pytest.mark.parametrize("verb", ["pay", "cancel"])
    @pytest.mark.parametrize(
        ("method", "body", "kind", "status"),
        [
            ("POST", b"[]", "application/json", 400),
            ("POST", b'{"reason": ', "application/json", 400),
            ("POST", b"reason=late", "application/x-www-form-urlencoded", 415),
            ("POST", b" " * 1_048_577, "application/json", 413),
            ("PUT", b"{}", "application/json", 405),
        ],
    )
    def test_it_stays_as_it_is(
        self, web: Web, order_id: str, verb: str, method: str, body: bytes, kind: str, status: int
    ) -> None:
        before = row_counts()
        headers = {"Content-Type": kind}
        assert_error(web.request(method, f"/orders/{order_id}/{verb}", body, headers), status)
        assert row_counts() == before
        assert Order.objects.get().status == "CREATED"
