"""The same request both ways, over real HTTP: same status, headers, body and rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.testing.web import JSON, Answer, Web, web_process
from notifications.tests.samples import NEXT_MONTH, SMS
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
    rb"|\b\d{17,19}\b"  # an id of a post
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
NOTIFICATIONS = "/api/v1/notifications"
# Bodies of POST /api/v1/notifications, in this order.
NASTY_NOTIFICATIONS: list[Any] = [
    SMS,
    SMS | {"priority": "high", "expires_at": NEXT_MONTH.replace("Z", "+01:00")},
    SMS | {"scheduled_at": NEXT_MONTH, "unknown": [1.50, {"a": 1}]},
    SMS | {"content": 'é𝄞"\\\n'},
    SMS | {"content": ""},
    SMS | {"content": None, "template_id": NOBODY},
    SMS | {"template_id": NOBODY},
    SMS | {"template_id": "null"},
    SMS | {"template_variables": {"a": "b"}},
    SMS | {"template_variables": {"a": 1}},
    SMS | {"channel": "email"},
    SMS | {"channel": "email", "recipient": "a@bücher.example"},
    SMS | {"channel": "push", "recipient": "x" * 2049},
    SMS | {"scheduled_at": "2026-01-01T00:00:00Z"},
    SMS | {"scheduled_at": f"{NEXT_MONTH[:16]}:60Z"},
    SMS | {"recipient": "\u0000"},
    [SMS],
    b"",
    b"{}",
    b"null",
    b'{"channel": "sms", "recipient": "+905000000000", "content": "a", "content": "b"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": "a", "content": "a"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": "\\ud800"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": "\xff"}',
    b'{"channel": "sms", "recipient": "+905000000000", "content": 1e999999}',
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
# What is asked of GET /orders, as it goes over the wire.
SURE_QUERIES = [
    *("limit=1", "limit=20", "limit=100", "status=PAID", "status=CREATED", "status=SHIPPED"),
    *("status=CANCELLED", "limit=1&status=PAID", "status=CREATED&limit=1", "status=PAID&limit=100"),
    "limit=1#x",  # the server takes it for a fragment
]
NASTY_QUERIES = [
    *("limit=0", "limit=101", "limit=01", "limit=007", "limit=+5", "limit=-1", "limit=1.0"),
    *("limit=1_0", "limit=0x1", "limit=", "limit", "limit=99999999999999999999", "limit=1e1"),
    *(
        "limit=%31",
        "limit=%D9%A1",
        "limit=%EF%BC%91",
        "limit=1%00",
        "limit=%FF",
        "limit=%",
        "li%6Dit=1",
    ),
    *("limit=1&limit=1", "limit=1&limit=2", "limit=1&&status=PAID", "limit=1&", "&limit=1", "&"),
    *("limit=1;status=PAID", "limit=1=1", "=1", "=", "limit=1&unknown=1", "unknown=1", "Limit=1"),
    *(
        "status=paid",
        "status=Paid",
        "status=",
        "status",
        "status=PAID+",
        "status=+PAID",
        "status=PAI",
    ),
    *(
        "status=%50AID",
        "status=PAID%20",
        "status=PAID%0A",
        "status=PA%C3%8FD",
        "status=PAID,CREATED",
    ),
    *("status=PAID&status=CREATED", "status[]=PAID", "limit=1&cursor=x", "cursor=", "format=json"),
    *(
        "limit=1&format=api",
        "limit=1?",
        "limit=1/",
        "customerId=c1",
        "limit=1&customerId=c1",
    ),
    *("created_from=2026-03-11", "limit=1&created_to=2026-03-11", "limit=" + "1" * 2000),
    *("limit=1" + "&x=1" * 500, "limit=1" + "&limit=1" * 500),
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
    touched = sorted((before - after).elements())
    assert touched == [], "\n".join([*map(str, touched), "now:", *map(str, after - before)])
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


def test_notifications_are_answered_before_django(ways: tuple[Web, Web]) -> None:
    """With a key of the body too."""
    for body in (SMS, SMS | {"idempotency_key": "k"}):
        before = coalesced(ways[0], "POST api/v1/notifications")
        id_ = ways[0].post(NOTIFICATIONS, body).json["id"]
        assert coalesced(ways[0], "POST api/v1/notifications") - before == 1
    route = "GET api/v1/notifications/<str:notification_id>"
    before = coalesced(ways[0], route)
    assert ways[0].get(f"{NOTIFICATIONS}/{id_}").status == 200
    assert coalesced(ways[0], route) - before == 1


def test_nasty_notifications(ways: tuple[Web, Web]) -> None:
    for body in NASTY_NOTIFICATIONS:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert_equal(ways, "POST", NOTIFICATIONS, sent, JSON)


def test_known_keys_of_notifications(ways: tuple[Web, Web]) -> None:
    """Both kinds of keys, each way on tables of its own."""
    keyed = SMS | {"idempotency_key": "k"}
    requests = [
        (keyed, {}),
        (keyed, {}),
        (keyed | {"priority": "normal"}, {"Idempotency-Key": "h"}),
        (keyed | {"content": "another"}, {"Idempotency-Key": "h"}),
        (SMS, {"Idempotency-Key": "h"}),
        (SMS, {"Idempotency-Key": "h"}),
        (SMS | {"content": "another"}, {"Idempotency-Key": "h"}),
        (keyed | {"recipient": "x"}, {}),
    ]
    answers = []
    for web in ways:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE notifications, notification_keys, idempotency_keys")
        answers.append(
            [
                told(web.post(NOTIFICATIONS, body, OURS | headers), made_up=True)
                for body, headers in requests
            ]
        )
    assert answers[0] == answers[1]
    assert [status for status, _, _ in answers[0]] == [201, 409, 409, 422, 201, 201, 422, 400]


def test_notifications_are_read_the_same(ways: tuple[Web, Web]) -> None:
    id_ = ways[0].post(NOTIFICATIONS, SMS).json["id"]
    for path in (id_, id_.upper(), NOBODY, f"{id_}?x=1", f"{id_}/", "x", "batch"):
        assert_equal(ways, "GET", f"{NOTIFICATIONS}/{path}", b"", {})


def test_queries_of_a_list(ways: tuple[Web, Web]) -> None:
    """Those that are sure are answered before Django, the others by it."""
    placed(ways[0])
    placed(ways[1])
    for sure, queries in ((True, SURE_QUERIES), (False, NASTY_QUERIES)):
        for query in queries:
            before = coalesced(ways[0], "GET orders")
            assert_equal(ways, "GET", f"/orders?{query}", b"", {})
            assert coalesced(ways[0], "GET orders") - before == sure, query


def test_queries_that_are_no_ascii(ways: tuple[Web, Web]) -> None:
    """No client of a library sends them."""
    for query in (b"limit=\xd9\xa1", b"status=PA\xcfD", b"limit=1&\xff=1", b"limit=1 "):
        answers = []
        for web in ways:
            with web.socket() as raw:
                raw.sendall(
                    b"GET /orders?%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % query
                )
                answers.append(b"".join(iter(lambda: raw.recv(65536), b"")))
        heads, bodies = zip(*(answer.split(b"\r\n\r\n", 1) for answer in answers), strict=True)
        assert heads[0].split(b"\r\n")[0] == heads[1].split(b"\r\n")[0]
        assert bodies[0] == bodies[1]


def test_links_are_followed_the_same(ways: tuple[Web, Web]) -> None:
    """The next page of what was asked before Django is Django's."""
    for number in range(5):
        assert ways[number % 2].post("/orders", SIMPLE).status == 200
    link = ways[0].get("/orders?limit=2&status=CREATED").header("link")
    assert link.startswith("</orders?limit=2&status=CREATED&cursor=")
    assert_equal(ways, "GET", link[1 : link.index(">")], b"", {})


names = st.sampled_from(["limit", "limit", "status", "cursor", "x", "lim%69t", "é"])
values = st.one_of(
    st.integers(-1, 102).map(str),
    st.sampled_from(["PAID", "CREATED", "", "paid", "%50AID", "a=b", "é", "1%00", "١"]),
    st.text(max_size=4),
)
pairs = st.tuples(names, st.sampled_from(["=", "=", "=", "", "=="]), values).map("".join)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(parts=st.lists(pairs, max_size=3), apart=st.sampled_from(["&", "&", "&&", ";"]))
def test_any_query(ways: tuple[Web, Web], parts: list[str], apart: str) -> None:
    query = quote(apart.join(parts), safe="%&;=+", errors="replace")
    assert_equal(ways, "GET", f"/orders?{query}", b"", {})


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
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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


def coalesced(web: Web, path: str) -> float:
    """How many requests the process has answered by this path's coalescer."""
    text = web.get("/metrics").body.decode()
    wanted = rf'^hot_path_batch_commands_sum\{{path="{re.escape(path)}"\}} (\S+)$'
    found = re.search(wanted, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
