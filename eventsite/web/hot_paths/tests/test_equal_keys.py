"""The same idempotency keys both ways, over real HTTP: same answers and rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.testing.web import Web
from eventsite.web.hot_paths.tests.both_ways import (
    ORDER,
    OURS,
    SIMPLE,
    coalesced,
    stored,
    told,
    with_key,
)
from restapi.models import IdempotencyRow
from restapi.tests.bodies import near_misses
from restapi.tests.tables import rows_in_words

pytestmark = pytest.mark.django_db(transaction=True)


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
