"""GET /feeds/{user} over real HTTP: what is asked, what is odd, what is wrong, and what is read while
others write."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis
from django.conf import settings
from django.db import connections

from devtools.testing.posts import create_posts
from devtools.testing.web import Answer, Web, assert_error
from feeds.models import FeedWindow
from feeds.services import NewPost
from feeds.tests.stage import delete, follow, new_id, post, settle, truth

pytestmark = pytest.mark.django_db(transaction=True)

TOO_LARGE = 1 << 64
HIGHEST = TOO_LARGE - 1


@pytest.fixture(autouse=True)
def _no_cached_feeds() -> None:
    with redis.Redis.from_url(settings.FEED_CACHE_URL) as server:
        server.flushdb()


@pytest.fixture
def posted(web: Web) -> list[int]:
    """The feed of `ann`, newest first: 50 posts of two whom she follows, and of herself."""
    follow("ann", "bob", "eve")
    authors = ("ann", "bob", "eve")
    made = [NewPost(post_id=new_id(), author_id=authors[n % 3], content="x") for n in range(50)]
    ids = create_posts(made)
    settle()
    return list(ids)[::-1]


def counted(web: Web, name: str) -> float:
    lines = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def ids_of(answer: Answer) -> list[int]:
    assert answer.status == 200, answer.body
    body = answer.json
    assert body["post_ids_str"] == list(map(str, body["post_ids"]))
    return list(body["post_ids"])


class TestPages:
    def test_the_newest(self, web: Web, posted: list[int]) -> None:
        answer = web.get("/feeds/ann")
        assert answer.json == {
            "user_id": "ann",
            "post_ids": posted[:20],
            "post_ids_str": list(map(str, posted[:20])),
            "next_before": posted[19],
        }
        assert answer.header("x-cache") == "MISS"
        again = web.get("/feeds/ann")
        assert (again.body, again.header("x-cache")) == (answer.body, "HIT")
        few = web.get("/feeds/ann?limit=3")
        assert (ids_of(few), few.header("x-cache")) == (posted[:3], "HIT")

    def test_pages_are_counted_by_where_they_came_from(self, web: Web) -> None:
        """Those before Django and those of Django."""
        names = ("feed_cache_hits_total", "feed_cache_misses_total")
        before = [counted(web, name) for name in names]
        for path in ("/feeds/ann", "/feeds/ann", "/feeds/ann", "/feeds/ann?expand=posts"):
            assert web.get(path).status == 200
        after = [counted(web, name) for name in names]
        assert [new - old for new, old in zip(after, before, strict=True)] == [3, 1]

    def test_nobody_has_an_empty_one(self, web: Web) -> None:
        for expected in ("MISS", "HIT"):
            answer = web.get("/feeds/nobody")
            assert answer.json == {
                "user_id": "nobody",
                "post_ids": [],
                "post_ids_str": [],
                "next_before": None,
            }
            assert answer.header("x-cache") == expected

    def test_any_other_limit_is_20(self, web: Web, posted: list[int]) -> None:
        for limit in ("0", "101", "abc", "-1", "1e1", "", "%20", "1.0", "+5", "9" * 5000):
            assert ids_of(web.get(f"/feeds/ann?limit={limit}")) == posted[:20], limit

    def test_an_offset_that_is_no_number_is_0(self, web: Web, posted: list[int]) -> None:
        for offset in ("abc", "-1", "", "1.0", "%D9%A1", "1_0", "+5"):
            assert ids_of(web.get(f"/feeds/ann?offset={offset}")) == posted[:20], offset

    def test_offsets_count_what_is_shown(self, web: Web, posted: list[int]) -> None:
        delete(posted[1])
        left = [posted[0], *posted[2:]]
        for offset in (0, 1, 30, 48, 49, 1000):
            answer = web.get(f"/feeds/ann?offset={offset}")
            assert ids_of(answer) == left[offset : offset + 20]
            more = len(left) > offset + 20
            assert answer.json["next_before"] == (left[offset + 19] if more else None)

    def test_an_offset_beyond_the_window_is_refused_with_a_hint(self, web: Web) -> None:
        for offset in ("1001", "18446744073709551616", "9" * 5000):
            body = assert_error(web.get(f"/feeds/ann?offset={offset}"), 400)
            [detail] = body["details"]
            assert detail["field"] == "offset"
            assert "before" in detail["message"]

    def test_before_and_after(self, web: Web, posted: list[int]) -> None:
        page = web.get(f"/feeds/ann?before={posted[4]}&limit=10")
        assert ids_of(page) == posted[5:15]
        assert page.json["next_before"] == posted[14]
        page = web.get(f"/feeds/ann?after={posted[30]}&limit=10")
        assert ids_of(page) == posted[20:30]
        assert page.json["next_before"] == posted[29]
        assert ids_of(web.get(f"/feeds/ann?after={posted[0]}")) == []
        for edge in (0, 1, posted[-1]):
            last = web.get(f"/feeds/ann?before={edge}")
            assert (ids_of(last), last.json["next_before"]) == ([], None)
        assert ids_of(web.get(f"/feeds/ann?before={HIGHEST}")) == posted[:20]
        assert ids_of(web.get(f"/feeds/ann?after={HIGHEST}")) == []
        assert ids_of(web.get("/feeds/ann?after=0&limit=2")) == posted[-2:]

    @pytest.mark.parametrize("name", ["before", "after"])
    def test_an_edge_that_is_no_unsigned_number_is_refused(self, web: Web, name: str) -> None:
        wrong = ("-1", str(TOO_LARGE), "abc", "", "1.0", "1e3", "+1", "0x1", "%D9%A1", "9" * 5000)
        for value in wrong:
            body = assert_error(web.get(f"/feeds/ann?{name}={value}"), 400)
            assert [detail["field"] for detail in body["details"]] == [name], value

    def test_only_one_of_before_after_and_offset(self, web: Web) -> None:
        for query in ("before=5&after=5", "before=5&offset=0", "after=5&offset=1"):
            assert_error(web.get(f"/feeds/ann?{query}"), 400)
        assert_error(web.get("/feeds/ann?before=1&before=1"), 400)

    def test_expanded(self, web: Web, posted: list[int]) -> None:
        answer = web.get("/feeds/ann?expand=posts&limit=3")
        assert ids_of(answer) == posted[:3]
        for words, id_ in zip(answer.json["posts"], posted, strict=False):
            assert words == web.get(f"/posts/{id_}").json
            assert words["post_id_str"] == str(id_)
        assert_error(web.get("/feeds/ann?expand=authors"), 400)

    def test_what_is_no_user_id_is_refused(self, web: Web) -> None:
        wrong = ("a/b", ".", "..", "x" * 256, "a\0b", "a\nb", "a\x7fb", "a\u0085b", "/", "ann/")
        for user in wrong:
            body = assert_error(web.get(f"/feeds/{quote(user, safe='.')}"), 400)
            assert [detail["field"] for detail in body["details"]] == ["user_id"], user

    def test_an_id_is_decoded_once(self, web: Web) -> None:
        for user in ("x" * 255, " ", "a%b", "%2F", "ä𝄞", "a+b&c=d", "...", "ﷺ" * 85):
            id_ = post(user)
            for _ in range(2):
                answer = web.get(f"/feeds/{quote(user, safe='')}")
                assert (answer.json["user_id"], ids_of(answer)) == (user, [id_])

    def test_other_methods(self, web: Web) -> None:
        answer = web.post("/feeds/ann", {})
        assert_error(answer, 405)
        assert answer.header("allow") == "GET, HEAD, OPTIONS"


class TestFromTheAnswerOn:
    """What an answer has said holds for every page asked for behind it, a HIT too."""

    def test_a_deletion(self, web: Web, posted: list[int]) -> None:
        assert ids_of(web.get("/feeds/ann")) == posted[:20]
        assert web.request("DELETE", f"/posts/{posted[0]}").status == 200
        answer = web.get("/feeds/ann")
        assert (ids_of(answer), answer.header("x-cache")) == (posted[1:21], "HIT")

    def test_an_unfollow_and_a_follow(self, web: Web, posted: list[int]) -> None:
        assert ids_of(web.get("/feeds/ann")) == posted[:20]
        pair = {"follower_id": "ann", "followee_id": "bob"}
        assert web.request("DELETE", "/follow?follower_id=ann&followee_id=bob").status == 200
        assert ids_of(web.get("/feeds/ann?limit=100")) == truth("ann")
        assert web.post("/follow", pair).status == 200
        assert ids_of(web.get("/feeds/ann?limit=100")) == truth("ann") == posted


def walk(web: Web, limit: int) -> Iterator[list[int]]:
    """The pages from the newest to the first post."""
    query = ""
    while True:
        answer = web.get(f"/feeds/ann?limit={limit}{query}")
        yield ids_of(answer)
        if answer.json["next_before"] is None:
            return
        query = f"&before={answer.json['next_before']}"


def test_paging_while_others_post_and_delete(web: Web) -> None:
    """Nothing comes twice, and nothing is skipped that was there all the time; the last page ends with
    the very first post, far below what is stored as entries."""
    authors = [f"author-{place}" for place in range(5)]
    follow("ann", *authors)
    settle()
    old = [NewPost(post_id=new_id(), author_id=authors[n % 5], content="x") for n in range(1500)]
    create_posts(old)
    settle()
    there = {each.post_id for each in old}
    assert FeedWindow.objects.get(user_id="ann").floor > min(there)
    doomed = random.Random(7).sample(sorted(there)[1:], 150)
    stop = threading.Event()

    def disturb() -> None:
        try:
            for number, victim in enumerate(doomed):
                if stop.is_set():
                    break
                post(authors[number % 5])
                delete(victim)
                deleted.add(victim)
                if number % 10 == 9:
                    settle()
        finally:
            connections.close_all()

    deleted: set[int] = set()
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for limit in (100, 20):
            seen: list[int] = []
            walked, page = walk(web, limit), [0]
            while page:
                gone = set(deleted)
                page = next(walked, [])
                assert gone.isdisjoint(page)
                seen += page
            assert seen == sorted(set(seen), reverse=True)
            assert there - set(doomed) <= set(seen)
            assert seen[-1] == min(there)
    finally:
        stop.set()
        thread.join()
    settle()
    assert [id_ for page in walk(web, 100) for id_ in page] == truth("ann")
