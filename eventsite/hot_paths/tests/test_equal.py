"""The same request both ways, over real HTTP: same status, headers, body and rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventsite.tests.web import JSON, Answer, Web, web_process
from restapi.models import IdempotencyRow
from restapi.tests.bodies import anything, near_misses, wrongly_written
from restapi.tests.tables import rows_in_words, without_made_up

pytestmark = pytest.mark.django_db(transaction=True)

OURS = {"X-Correlation-ID": "of-this-test"}  # is in every row that tells of the request
ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
SIMPLE = {"user_id": "u1", "amount": 42.5}
SIMPLE_BODY = json.dumps(SIMPLE).encode()
NOBODY = "01890000-0000-7000-8000-00000000dead"
MADE_UP = re.compile(
    rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
)
# "connection" tells whether the body had come when the gateway refused the request: an accident.
OF_THE_REQUEST = frozenset(
    {"connection", "date", "x-request-id", "x-correlation-id", "traceparent"}
)
CSRF = re.compile(r"csrftoken=\w+|expires=[^;]+")

NASTY_POSTS: list[tuple[str, str, bytes, Mapping[str, str]]] = [
    ("POST", "/orders", SIMPLE_BODY, JSON),
    ("POST", "/orders", json.dumps(ORDER).encode(), JSON),
    ("POST", "/orders?x=1", SIMPLE_BODY, JSON),
    ("POST", "/orders/", SIMPLE_BODY, JSON),
    ("POST", "/%6frders", SIMPLE_BODY, JSON),
    ("PUT", "/orders", SIMPLE_BODY, JSON),
    ("post", "/orders", SIMPLE_BODY, JSON),
    ("POST", "/orders", b"", JSON),
    ("POST", "/orders", b"{", JSON),
    ("POST", "/orders", b"\xff\xfe{}", JSON),
    ("POST", "/orders", b"\xef\xbb\xbf" + SIMPLE_BODY, JSON),
    ("POST", "/orders", b"[" * 5000, JSON),
    ("POST", "/orders", SIMPLE_BODY + b"\0", JSON),
    ("POST", "/orders", SIMPLE_BODY * 2, JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 1e999999}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 1e2}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 42.500}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": "42.5"}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": NaN}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 42.5, "amount": 42.50}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 42.5, "amount": 1}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 42.5, "x": {"a": 1, "a": 2}}', JSON),
    ("POST", "/orders", b'{"user_id": "a\\u0000b", "amount": 1}', JSON),
    ("POST", "/orders", b'{"user_id": "\\ud800", "amount": 1}', JSON),
    ("POST", "/orders", b'{"user_id": "\\"{},\\\\", "amount": 1}', JSON),
    ("POST", "/orders", '{"user_id": "é𝄞", "amount": 1}'.encode(), JSON),
    ("POST", "/orders", SIMPLE_BODY, {}),
    ("POST", "/orders", SIMPLE_BODY, {"Content-Type": "text/plain"}),
    ("POST", "/orders", SIMPLE_BODY, {"Content-Type": "application/json; a=b"}),
    ("POST", "/orders", SIMPLE_BODY, {"Content-Type": "Application/JSON"}),
    ("POST", "/orders", SIMPLE_BODY, {"Content-Type": "application/json, application/json"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Content-Encoding": "gzip"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"X-HTTP-Method-Override": "GET"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Idempotency-Key": "\x7f"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Cookie": "csrftoken=x; sessionid=y"}),
    ("POST", "/orders", b" " * 1_048_577, JSON),
]
# {order} is an order that is there.
NASTY_GETS: list[tuple[str, str, bytes, Mapping[str, str]]] = [
    ("GET", "/orders", b"", {}),
    ("GET", "/orders/{order}", b"", {}),
    ("HEAD", "/orders", b"", {}),
    ("HEAD", "/orders/{order}", b"", {}),
    ("HEAD", "/health", b"", {}),
    ("GET", "/health", b"", {}),
    ("GET", "/health?x=1", b"", {}),
    ("GET", "/health/", b"", {}),
    ("GET", "/health", b"{", JSON),
    ("DELETE", "/health", b"", {}),
    ("GET", "/orders?", b"", {}),
    ("GET", "/orders?limit=1", b"", {}),
    ("GET", "/orders?limit=0", b"", {}),
    ("GET", "/orders?unknown=1", b"", {}),
    ("GET", "/orders/", b"", {}),
    ("GET", "//orders", b"", {}),
    ("GET", "/ORDERS", b"", {}),
    ("GET", "/orders", b"{", JSON),
    ("GET", "/orders", b"", {"Content-Type": "text/html"}),
    ("GET", "/orders", b"", {"Accept": "text/html"}),
    ("GET", "/orders", b"", {"Accept-Encoding": "gzip, br"}),
    ("GET", "/orders", b"", {"Range": "bytes=0-1"}),
    ("GET", "/orders", b"", {"If-None-Match": "*"}),
    ("GET", "/orders", b"", {"Cookie": "csrftoken=x"}),
    ("GET", "/orders", b"", {"Cookie": "sessionid=nobody"}),
    ("GET", f"/orders/{NOBODY}", b"", {}),
    ("GET", f"/orders/{NOBODY.upper()}", b"", {}),
    ("GET", "/orders/{order}/", b"", {}),
    ("GET", "/orders/{order}?x=1", b"", {}),
    ("GET", "/orders/{ORDER}", b"", {}),
    ("GET", "/orders/{{{order}}}", b"", {}),
    ("GET", "/orders/urn:uuid:{order}", b"", {}),
    ("GET", "/orders/%7B{order}%7D", b"", {}),
    ("GET", "/orders/%20{order}", b"", {}),
    ("GET", "/orders/{order}%0A", b"", {}),
    ("GET", "/orders/{order}%00", b"", {}),
    ("GET", "/orders/x/{order}", b"", {}),
    ("GET", "/health/{order}", b"", {}),
    ("GET", "/{order}", b"", {}),
    ("GET", "/orders{order}", b"", {}),
    ("GET", "/orders/{plain}", b"", {}),
    ("GET", "/orders/{order}", b"{", JSON),
    ("GET", "/orders/{order}", b"", {"Range": "bytes=0-1"}),
    ("GET", "/orders/{order}", b"", {"If-Modified-Since": "Sat, 21 Nov 2026 00:00:00 GMT"}),
    ("DELETE", "/orders/{order}", b"", {}),
    ("POST", "/orders/{order}", SIMPLE_BODY, JSON),
    ("OPTIONS", "/orders/{order}", b"", {}),
]


@pytest.fixture(scope="module")
def ways_of_module(django_db_setup: None) -> Iterator[tuple[Web, Web]]:
    with web_process(HOT_PATHS="on") as hot, web_process(HOT_PATHS="off") as django:
        yield hot, django


@pytest.fixture
def ways(ways_of_module: tuple[Web, Web], transactional_db: None) -> tuple[Web, Web]:
    return ways_of_module


def headers_of(answer: Answer) -> list[tuple[str, str]]:
    """All but those that are made for each request. A new CSRF token is as good as another, and
    the methods of a function's view have another order in each process."""
    return sorted(
        (name.lower(), CSRF.sub("?", _sorted(value) if name.lower() == "allow" else value))
        for name, value in answer.headers
        if name.lower() not in OF_THE_REQUEST
    )


def _sorted(methods: str) -> str:
    return ", ".join(sorted(methods.split(", ")))


def told(answer: Answer, *, made_up: bool) -> tuple[int, list[tuple[str, str]], bytes]:
    """What must be equal; ids and times in the answer to a POST are made up anew."""
    body = MADE_UP.sub(b"?", answer.body) if made_up else answer.body
    return answer.status, headers_of(answer), body


def stored(before: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows that have come since, and what nobody may have touched."""
    after = rows_in_words()
    assert not before - after
    return without_made_up(after - before)


def assert_equal(
    ways: tuple[Web, Web], method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> int:
    answers, rows = [], []
    for web in ways:
        before = rows_in_words()
        answers.append(web.request(method, path, body, {**OURS, **headers}))
        rows.append(stored(before))
    made_up = method.upper() == "POST"
    assert told(answers[0], made_up=made_up) == told(answers[1], made_up=made_up)
    assert rows[0] == rows[1]
    return answers[0].status


def placed(web: Web) -> str:
    """The id of an order that was paid, with a simple one behind it."""
    order_id = str(web.post("/orders", ORDER).json["orderId"])
    assert web.post(f"/orders/{order_id}/pay").status == 200
    assert web.post("/orders", SIMPLE).status == 200
    return order_id


def fill_in(path: str, order_id: str) -> str:
    return path.format(order=order_id, ORDER=order_id.upper(), plain=order_id.replace("-", ""))


@pytest.mark.parametrize(("method", "path", "body", "headers"), NASTY_POSTS)
def test_nasty_posts(
    ways: tuple[Web, Web], method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> None:
    assert_equal(ways, method, path, body, headers)


@pytest.mark.parametrize("order_of", [0, 1], ids=["placed hot", "placed by Django"])
def test_nasty_gets(ways: tuple[Web, Web], order_of: int) -> None:
    order_id = placed(ways[order_of])
    for method, path, body, headers in NASTY_GETS:
        assert_equal(ways, method, fill_in(path, order_id), body, headers)


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "application/json"), ("Content-Type", "application/json")],
        [("Content-Type", "text/plain"), ("Content-Type", "application/json")],
        [("Content-Type", "application/json"), ("Cookie", "a=b"), ("Cookie", "csrftoken=x")],
        [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")],
    ],
)
def test_headers_given_twice(ways: tuple[Web, Web], headers: list[tuple[str, str]]) -> None:
    chunked = ("Transfer-Encoding", "chunked") in headers
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SIMPLE_BODY), SIMPLE_BODY) if chunked else SIMPLE_BODY
    sized = headers if chunked else [*headers, ("Content-Length", str(len(body)))]
    head = "".join(f"{name}: {value}\r\n" for name, value in sized)
    answers, rows = [], []
    for web in ways:
        before = rows_in_words()
        with web.socket() as raw:
            raw.sendall(
                f"POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode()
            )
            raw.sendall(body)
            answers.append(b"".join(iter(lambda: raw.recv(65536), b"")))
        rows.append(stored(before))
    assert answers[0].split(b"\r\n")[0] == answers[1].split(b"\r\n")[0]
    bodies = [MADE_UP.sub(b"?", answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert bodies[0] == bodies[1]
    assert rows[0] == rows[1]


def test_lists_of_every_length(ways: tuple[Web, Web]) -> None:
    """None, a full page, and one more: then there is a Link."""
    for count in (0, 20, 1):
        for number in range(count):
            assert ways[number % 2].post("/orders", SIMPLE).status == 200
        assert_equal(ways, "GET", "/orders", b"", {})
    assert ways[0].get("/orders").header("link")


def test_what_was_answered_is_read(ways: tuple[Web, Web]) -> None:
    """Whoever writes, hot or not, is seen by the next read, hot or not."""
    for writer in ways:
        for reader in ways:
            order_id = writer.post("/orders", SIMPLE).json["order_id"]
            assert reader.get(f"/orders/{order_id}").status == 200
            assert reader.get("/orders").json[0]["orderId"] == order_id


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=st.one_of(near_misses, anything), ascii=st.booleans())
def test_any_body(ways: tuple[Web, Web], body: Any, ascii: bool) -> None:  # noqa: A002
    written = json.dumps(body, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    assert_equal(ways, "POST", "/orders", written, JSON)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=wrongly_written(near_misses))
def test_any_body_that_is_wrongly_written(ways: tuple[Web, Web], body: bytes) -> None:
    assert_equal(ways, "POST", "/orders", body, JSON)


@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize(("depth", "status"), [(99, 200), (100, 400), (475, 400), (968, 400)])
def test_how_deep_a_body_may_be(
    ways: tuple[Web, Web], open_: bytes, close: bytes, doubled: bool, depth: int, status: int
) -> None:
    """Also where Python's own bound lies between the two ways."""
    deep = b',"x":' + open_ * depth + (b"1" if open_ != b"[" else b"") + close * depth
    body = SIMPLE_BODY[:-1] + deep * (1 + doubled) + b"}"
    assert assert_equal(ways, "POST", "/orders", body, JSON) == status


def with_key(key: str | bytes) -> Mapping[str, str]:
    """Both ways take the same bytes."""
    raw = key.encode() if isinstance(key, str) else key
    return JSON | {"Idempotency-Key": raw.decode("latin-1")}


def assert_equal_series(ways: tuple[Web, Web], *requests: tuple[bytes, str]) -> list[int]:
    """The same keyed requests, one after the other; the second way finds the keys free again."""
    series = []
    for web in ways:
        IdempotencyRow.objects.all().delete()
        before = rows_in_words()
        answers = [
            web.request("POST", "/orders", body, {**OURS, **with_key(key)})
            for body, key in requests
        ]
        series.append(
            [
                (
                    [
                        (told(answer, made_up=True), answer.header("idempotent-replayed"))
                        for answer in answers
                    ]
                ),
                stored(before),
            ]
        )
    assert series[0] == series[1]
    return [answer.status for answer in answers]


def test_keyed_requests(ways: tuple[Web, Web]) -> None:
    simple, order = json.dumps(SIMPLE).encode(), json.dumps(ORDER).encode()
    statuses = assert_equal_series(
        ways,
        (simple, "a"),
        (simple, "a"),
        (order, "a"),
        (b"{", "a"),
        (order, "b"),
        (order + b" ", "b"),
        (order, "b"),
        (b"{}", "c"),
        (order, "c"),
        (order, ""),
        (order, "x" * 255),
        (order, "x" * 256),
        (order, "\u00e9"),
        (b"{}", "\u00e9"),
    )
    assert statuses == [200, 200, 422, 422, 201, 422, 201, 400, 201, 400, 201, 400, 400, 400]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    key=st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=300),
    body=near_misses,
)
def test_any_key(ways: tuple[Web, Web], key: str, body: Any) -> None:
    encoded = json.dumps(body).encode()
    assert_equal_series(ways, (encoded, key), (encoded, key))


def test_keyed_requests_are_coalesced(ways: tuple[Web, Web]) -> None:
    before = [coalesced(web, "POST orders") for web in ways]
    for web in ways:
        IdempotencyRow.objects.all().delete()
        for _ in range(2):
            assert web.post("/orders", SIMPLE, with_key("k")).status == 200
    assert [coalesced(web, "POST orders") for web in ways] == [before[0] + 2, before[1]]


methods = st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "GETT"])
paths = st.sampled_from(["/orders", "/orders/{order}", f"/orders/{NOBODY}", "/health"])
endings = st.sampled_from(["", "", "", "/", "?", "?limit=1", "?x=%00", "%20", "%2F", ";a", "."])
odd_headers = st.dictionaries(
    st.sampled_from(
        [
            *("Accept", "Accept-Language", "Authorization", "Cookie", "Content-Encoding", "Origin"),
            *("Content-Type", "If-None-Match", "If-Match", "Range", "Referer", "Sec-Fetch-Site"),
            *("X-API-Key", "X-Forwarded-Proto", "X-HTTP-Method-Override", "X-Requested-With"),
            *("X-CSRFToken", "Pragma", "Cache-Control", "DNT", "Upgrade-Insecure-Requests"),
        ]
    ),
    st.sampled_from(["*/*", "application/json", "application/json;", "x", "csrftoken=x", "é", "0"]),
    max_size=3,
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    method=methods,
    path=paths,
    ending=endings,
    headers=odd_headers,
    body=st.sampled_from([b"", SIMPLE_BODY, json.dumps(ORDER).encode(), b"{"]),
    json_type=st.booleans(),
)
def test_any_request(
    ways: tuple[Web, Web],
    method: str,
    path: str,
    ending: str,
    headers: dict[str, str],
    body: bytes,
    json_type: bool,
) -> None:
    listed = ways[1].get("/orders?limit=1").json
    order_id = listed[0]["orderId"] if listed else NOBODY
    sent = headers | JSON if json_type else headers
    assert_equal(ways, method, fill_in(path, order_id) + ending, body, sent)


@pytest.mark.parametrize(
    ("method", "path", "metric"),
    [
        ("POST", "/orders", "POST orders"),
        ("GET", "/orders", "GET orders"),
        ("GET", "/orders/{order}", "GET orders/<str:order_id>"),
    ],
)
def test_the_two_ways_really_differ(
    ways: tuple[Web, Web], method: str, path: str, metric: str
) -> None:
    path = fill_in(path, placed(ways[1]))
    before = [coalesced(web, metric) for web in ways]
    for web in ways:
        body, headers = (SIMPLE_BODY, JSON) if method == "POST" else (None, {})
        assert web.request(method, path, body, headers).status == 200
    assert [coalesced(web, metric) for web in ways] == [before[0] + 1, before[1]]


def coalesced(web: Web, path: str) -> float:
    """How many requests the process has answered by this path's coalescer."""
    text = web.get("/metrics").body.decode()
    wanted = rf'^hot_path_batch_commands_sum\{{path="{re.escape(path)}"\}} (\S+)$'
    found = re.search(wanted, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
