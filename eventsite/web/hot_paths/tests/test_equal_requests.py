"""The same request of orders or posts both ways, over real HTTP: same status, headers, body and rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.testing.web import JSON, Web
from eventsite.web.hot_paths.tests.both_ways import (
    MADE_UP,
    NOBODY,
    ORDER,
    SIMPLE,
    SIMPLE_BODY,
    assert_equal,
    coalesced,
    fill_in,
    placed,
    stored,
)
from restapi.tests.bodies import anything, near_misses, wrongly_written
from restapi.tests.tables import rows_in_words

pytestmark = pytest.mark.django_db(transaction=True)
NASTY_POSTS: list[tuple[str, str, bytes, Mapping[str, str]]] = [
    ("POST", "/orders", SIMPLE_BODY, JSON),
    ("POST", "/orders", json.dumps(ORDER).encode(), JSON),
    ("POST", "/orders?x=1", SIMPLE_BODY, JSON),
    ("POST", "/orders/", SIMPLE_BODY, JSON),
    ("POST", "/%6frders", SIMPLE_BODY, JSON),
    ("PUT", "/orders", SIMPLE_BODY, JSON),
    ("post", "/orders", SIMPLE_BODY, JSON),
    ("FOO", "/orders", SIMPLE_BODY, JSON),
    ("PROPFIND", "/orders", SIMPLE_BODY, JSON),
    ("POST", "/orders", b"", JSON),
    ("POST", "/orders", b"{", JSON),
    ("POST", "/orders", b"\xff\xfe{}", JSON),
    ("POST", "/orders", b"\xef\xbb\xbf" + SIMPLE_BODY, JSON),
    ("POST", "/orders", b"[" * 5000, JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": ' + b"9" * 5000 + b"}", JSON),
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
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Content-Encoding": "identity"}),
    ("POST", "/orders", SIMPLE_BODY, {"Content-Type": " application/json\t "}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Host": "x y"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Host": ""}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Content-Length": f"{'0' * 30}{len(SIMPLE_BODY)}"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Content-Length": f"{'0' * 5000}{len(SIMPLE_BODY)}"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Content-Length": "1000000000000000000"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"X-HTTP-Method-Override": "GET"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Idempotency-Key": "\x7f"}),
    ("POST", "/orders", SIMPLE_BODY, JSON | {"Cookie": "csrftoken=x; sessionid=y"}),
    ("POST", "/orders", b" " * 1_048_577, JSON),
]
POST_BODY = json.dumps({"author_id": "ada", "content": "hello"}).encode()
NASTY_POSTS += [
    ("POST", "/posts", POST_BODY, JSON),
    ("POST", "/posts?x=1", POST_BODY, JSON),
    ("POST", "/posts", b'{"author_id": "a", "content": " "}', JSON),
    ("POST", "/posts", b'{"author_id": "..", "content": "x"}', JSON),
    ("POST", "/posts", b'{"author_id": "\\ud800", "content": "x"}', JSON),
    ("POST", "/posts", b'{"author_id": "a", "content": "\\u0000"}', JSON),
    ("POST", "/posts", b'{"author_id": "a", "content": "x", "content": "x", "y": {}}', JSON),
    ("POST", "/posts", '{"author_id": "é𝄞 ", "content": "\\"\\n𝄞"}'.encode(), JSON),
    ("POST", "/posts", b'{"author_id": "a", "content": "' + b"x" * 10_001 + b'"}', JSON),
    ("POST", "/posts", POST_BODY, {}),
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
    ("GET", "/orders?limit=", b"", {}),
    ("GET", "/orders?limit=1&limit=1", b"", {}),
    ("FOO", "/orders/{order}", b"", {}),
    ("GET", "/orders", b"", {"Host": ""}),
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


@pytest.mark.parametrize(("method", "path", "body", "headers"), NASTY_POSTS)
def test_nasty_posts(
    ways: tuple[Web, Web], method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> None:
    assert_equal(ways, method, path, body, headers)


def test_posts_are_stored_before_django_once_there_is_a_node(ways: tuple[Web, Web]) -> None:
    """The first of a process waits for one in a thread of Django's."""
    post = {"author_id": "ada", "content": "hello"}
    ids = [ways[0].post("/posts", post).json["post_id"]]
    before = coalesced(ways[0], "POST posts")
    ids += [web.post("/posts", post).json["post_id"] for web in ways]
    assert coalesced(ways[0], "POST posts") - before == 1
    assert len(set(ids)) == 3


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
        [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
        [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")],
        [("Content-Type", "application/json"), ("Host", "x")],
        [("Content-Type", "application/json"), ("Authorization", "a"), ("Authorization", "a")],
        [("Content-Type", "application/json"), ("X-API-Key", "a"), ("X-API-Key", "b")],
        [("Content-Type", "application/json"), ("X-Request-ID", "a"), ("X-Request-ID", "b")],
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
            # In one piece: who sends on after the refusal may lose it to a reset.
            raw.sendall(
                f"POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode()
                + body
            )
            answers.append(b"".join(iter(lambda: raw.recv(65536), b"")))
        rows.append(stored(before))
    assert answers[0].split(b"\r\n")[0] == answers[1].split(b"\r\n")[0]
    bodies = [MADE_UP.sub(b"?", answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert bodies[0] == bodies[1]
    assert rows[0] == rows[1]


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
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=st.one_of(near_misses, anything), ascii=st.booleans())
def test_any_body(ways: tuple[Web, Web], body: Any, ascii: bool) -> None:  # noqa: A002
    written = json.dumps(body, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    assert_equal(ways, "POST", "/orders", written, JSON)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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
