"""The same request both ways, over real HTTP: same status, same body, same rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventsite.tests.web import JSON, Answer, Web, web_process
from restapi.models import IdempotencyRow
from restapi.tests.bodies import anything, near_misses
from restapi.tests.tables import row_counts

pytestmark = pytest.mark.django_db(transaction=True)

ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
SIMPLE = {"user_id": "u1", "amount": 42.5}
MADE_UP = re.compile(
    rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
)
COMPARED = ("content-type", "x-content-type-options", "x-frame-options", "retry-after")
NASTY: list[tuple[str, str, bytes, Mapping[str, str]]] = [
    ("POST", "/orders", json.dumps(SIMPLE).encode(), JSON),
    ("POST", "/orders", json.dumps(ORDER).encode(), JSON),
    ("POST", "/orders?x=1", json.dumps(SIMPLE).encode(), JSON),
    ("POST", "/orders/", json.dumps(SIMPLE).encode(), JSON),
    ("PUT", "/orders", json.dumps(SIMPLE).encode(), JSON),
    ("POST", "/orders", b"", JSON),
    ("POST", "/orders", b"{", JSON),
    ("POST", "/orders", b"\xff\xfe{}", JSON),
    ("POST", "/orders", b"\xef\xbb\xbf" + json.dumps(SIMPLE).encode(), JSON),
    ("POST", "/orders", b"[" * 5000, JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 1e999999}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": NaN}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 42.5, "amount": 42.50}', JSON),
    ("POST", "/orders", b'{"user_id": "u1", "amount": 42.5, "amount": 1}', JSON),
    ("POST", "/orders", b'{"user_id": "a\\u0000b", "amount": 1}', JSON),
    ("POST", "/orders", b'{"user_id": "\\ud800", "amount": 1}', JSON),
    ("POST", "/orders", json.dumps(SIMPLE).encode(), {}),
    ("POST", "/orders", json.dumps(SIMPLE).encode(), {"Content-Type": "text/plain"}),
    ("POST", "/orders", json.dumps(SIMPLE).encode(), {"Content-Type": "application/json; a=b"}),
    ("POST", "/orders", json.dumps(SIMPLE).encode(), JSON | {"Content-Encoding": "gzip"}),
    ("POST", "/orders", json.dumps(SIMPLE).encode(), JSON | {"X-HTTP-Method-Override": "GET"}),
    ("POST", "/orders", b" " * 1_048_577, JSON),
    ("HEAD", "/orders", b"", {}),
]


@pytest.fixture(scope="module")
def ways_of_module(django_db_setup: None) -> Iterator[tuple[Web, Web]]:
    with web_process(HOT_PATHS="on") as hot, web_process(HOT_PATHS="off") as django:
        yield hot, django


@pytest.fixture
def ways(ways_of_module: tuple[Web, Web], transactional_db: None) -> tuple[Web, Web]:
    return ways_of_module


def told(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What must be equal: ids and times are made up anew for each request."""
    headers = {name: answer.header(name) for name in COMPARED}
    return answer.status, headers, MADE_UP.sub(b"?", answer.body)


def stored(before: Mapping[str, int]) -> dict[str, int]:
    return {table: count - before[table] for table, count in row_counts().items()}


def assert_equal(
    ways: tuple[Web, Web], method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> int:
    answers, rows = [], []
    for web in ways:
        before = row_counts()
        answers.append(web.request(method, path, body, headers))
        rows.append(stored(before))
    assert told(answers[0]) == told(answers[1])
    assert rows[0] == rows[1]
    return answers[0].status


@pytest.mark.parametrize(("method", "path", "body", "headers"), NASTY)
def test_nasty_requests(
    ways: tuple[Web, Web], method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> None:
    assert_equal(ways, method, path, body, headers)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=st.one_of(near_misses, anything))
def test_any_body(ways: tuple[Web, Web], body: Any) -> None:
    assert_equal(ways, "POST", "/orders", json.dumps(body).encode(), JSON)


def with_key(key: str | bytes) -> Mapping[str, str]:
    """Both ways take the same bytes."""
    raw = key.encode() if isinstance(key, str) else key
    return JSON | {"Idempotency-Key": raw.decode("latin-1")}


def assert_equal_series(ways: tuple[Web, Web], *requests: tuple[bytes, str]) -> list[int]:
    """The same keyed requests, one after the other; the second way finds the keys free again."""
    series = []
    for web in ways:
        IdempotencyRow.objects.all().delete()
        before = row_counts()
        answers = [web.request("POST", "/orders", body, with_key(key)) for body, key in requests]
        series.append(
            [
                ([(told(answer), answer.header("idempotent-replayed")) for answer in answers]),
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
    assert statuses == [200, 200, 422, 400, 201, 422, 201, 400, 201, 400, 201, 400, 400, 400]


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
    before = [coalesced(web) for web in ways]
    for web in ways:
        IdempotencyRow.objects.all().delete()
        for _ in range(2):
            assert web.post("/orders", SIMPLE, with_key("k")).status == 200
    assert [coalesced(web) for web in ways] == [before[0] + 2, before[1]]


def test_the_two_ways_really_differ(ways: tuple[Web, Web]) -> None:
    before = [coalesced(web) for web in ways]
    for web in ways:
        assert web.post("/orders", SIMPLE).status == 200
    assert [coalesced(web) for web in ways] == [before[0] + 1, before[1]]


def coalesced(web: Web) -> float:
    """How many commands the process has stored by its coalescer."""
    text = web.get("/metrics").body.decode()
    found = re.search(r'^hot_path_batch_commands_sum\{path="orders"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0
