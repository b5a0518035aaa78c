"""GET /feeds/{user} both ways, over real HTTP: same status, headers and body."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import redis
from django.conf import settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from devtools.testing.web import Web
from eventsite.web.hot_paths.tests.both_ways import coalesced, headers_of
from feeds.tests.stage import delete, follow, post, settle

pytestmark = pytest.mark.django_db(transaction=True)

HIGHEST = (1 << 64) - 1
SURE = [
    *("", "limit=1", "limit=100", "offset=0", "offset=1000", "limit=7&offset=3", "before={3}"),
    *("after={3}", "before=0", "after=0", f"before={HIGHEST}", f"after={HIGHEST}"),
    "limit=2&before={5}",
]
ODD = [
    *("limit=0", "limit=101", "limit=abc", "limit=", "limit=007", "limit=1&limit=1", "limit=%31"),
    *("offset=-1", "offset=1001", "offset=01", "offset=", "before=-1", "before=", "before=1.0"),
    *(f"before={HIGHEST + 1}", "before={3}&after={5}", "before={3}&offset=0", "after=x", "x=1"),
    *("expand=posts", "expand=posts&before={4}", "expand=", "expand=x", "before={3}&before={3}"),
]
USERS = ["ann", "nobody", "a~b-c._", "...", "x" * 255]
ODD_USERS = [".", "..", "x" * 256, "a%20b", "a%2Fb", "a%00b", "%C3%A4", "ann/", "a%25", "%FF"]


@pytest.fixture
def ways(ways_of_session: tuple[Web, Web], transactional_db: None) -> tuple[Web, Web]:
    with redis.Redis.from_url(settings.FEED_CACHE_URL) as server:
        server.flushdb()
    return ways_of_session


@pytest.fixture
def ids(ways: tuple[Web, Web]) -> list[int]:
    """Of the feed of `ann`: one is deleted, and not all are entries yet."""
    follow("ann", "bob")
    found = [post("bob") for _ in range(30)]
    settle()
    follow("ann", "eve")
    found += [post("eve"), post("ann")]
    delete(found[7])
    return found[::-1]


def assert_equal(ways: tuple[Web, Web], path: str) -> int:
    """The first answer fills the cache, or not; two more are compared."""
    ways[0].get(path)
    answers = [web.get(path) for web in ways]
    assert [(each.status, headers_of(each), each.body) for each in answers[:1]] == [
        (each.status, headers_of(each), each.body) for each in answers[1:]
    ]
    return answers[0].status


def test_queries(ways: tuple[Web, Web], ids: list[int]) -> None:
    """Those that are sure are answered before Django, the others by it."""
    for queries, sure in ((SURE, True), (ODD, False)):
        for query in queries:
            before = coalesced(ways[0], "GET feeds/<text:user_id>")
            assert_equal(ways, f"/feeds/ann?{query.format(*ids)}".rstrip("?"))
            answered = coalesced(ways[0], "GET feeds/<text:user_id>") - before
            assert answered == (2 if sure else 0), query


def test_users(ways: tuple[Web, Web], ids: list[int]) -> None:
    for user in (*USERS, *ODD_USERS):
        assert assert_equal(ways, f"/feeds/{user}") in (200, 400), user


numbers = st.sampled_from(["0", "1", "3", "20", "100", "1000", "", "x", "-1", str(HIGHEST), "{3}"])
pairs = st.tuples(st.sampled_from(["limit", "offset", "before", "after", "expand"]), numbers)


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(pairs.map("=".join), max_size=3))
def test_any_query(ways: tuple[Web, Web], ids: list[int], parts: list[str]) -> None:
    query = quote("&".join(parts).format(*ids), safe="&=")
    assert_equal(ways, f"/feeds/ann?{query}")
