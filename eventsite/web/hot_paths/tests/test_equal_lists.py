"""The same list of orders both ways, over real HTTP: same status, headers and body, whatever the query."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.testing.web import Web
from eventsite.web.hot_paths.tests.both_ways import SIMPLE, assert_equal, coalesced, placed

pytestmark = pytest.mark.django_db(transaction=True)
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


def test_lists_of_every_length(ways: tuple[Web, Web]) -> None:
    """None, a full page, and one more: then there is a Link."""
    for count in (0, 20, 1):
        for number in range(count):
            assert ways[number % 2].post("/orders", SIMPLE).status == 200
        assert_equal(ways, "GET", "/orders", b"", {})
    assert ways[0].get("/orders").header("link")
