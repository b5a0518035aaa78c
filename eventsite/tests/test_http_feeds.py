"""Posts and follows over real HTTP: what the contract promises, and what a careless client sends."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from devtools.testing.patience import PATIENCE
from devtools.testing.web import JSON, Answer, Web, assert_error
from feeds.erasure import erase_user
from feeds.events import events_of_post
from feeds.models import FeedAuthor, Follow, Post
from outbox.models import OutboxEvent

LONG = "x" * 255
# Ids that are: whatever is in them, but for what USER_ID of feeds/events.py names.
GOOD_IDS = ["a", " ", "a b", "é𝄞", "100%", "%2F", "a%41", "...", ".a", "?#&=+;", "\u2028", LONG]
BAD_IDS = ["", "a/b", "/", ".", "..", "a\nb", "\t", "\x00", "a\x7f", "\x85", LONG + "x"]
LONE_SURROGATE = r"\ud800"
TOO_BIG = 1 << 63
NO_POST_IDS = [
    "0",
    "-1",
    "007",
    "1.0",
    "1e3",
    "abc",
    "%20",
    "1%20",
    "1%0A",
    str(TOO_BIG),
    "9" * 400,
]


def posted(web: Web, author_id: str = "ada", content: str = "hello") -> int:
    answer = web.post("/posts", {"author_id": author_id, "content": content})
    assert answer.status == 202, answer.body
    return int(answer.json["post_id"])


def raw_post(web: Web, path: str, body: str) -> Answer:
    return web.request("POST", path, body.encode("utf-8", "surrogatepass"), JSON)


def pair(follower_id: str = "grace", followee_id: str = "ada") -> dict[str, str]:
    return {"follower_id": follower_id, "followee_id": followee_id}


def unfollow(web: Web, value: Any = None, **query: str) -> Answer:
    path = f"/follow?{urlencode(query)}" if query else "/follow"
    if value is None:
        return web.request("DELETE", path)
    return web.request("DELETE", path, json.dumps(value).encode(), JSON)


def follows() -> set[tuple[str, str]]:
    return set(Follow.objects.filter(active=True).values_list("follower_id", "followee_id"))


# -- what is promised


def test_a_post_is_told_read_listed_and_deleted(web: Web) -> None:
    text = 'Ünïcödé 𝄞 "quoted"\n\\ \u2028 '
    answer = web.post("/posts", {"author_id": "ada", "content": text, "unknown": 1})
    assert answer.status == 202
    post_id = answer.json["post_id"]
    assert answer.json == {
        "post_id": post_id,
        "post_id_str": str(post_id),
        "message": "Post created successfully",
    }
    assert post_id > 1 << 53
    read = web.get(f"/posts/{post_id}")
    assert read.status == 200
    assert read.json.pop("created_at").endswith("Z")
    whole = {"post_id": post_id, "post_id_str": str(post_id), "author_id": "ada", "content": text}
    assert {key: value for key, value in read.json.items() if key != "created_at"} == whole
    listed = web.get("/posts?author_id=ada").json
    assert listed == {"author_id": "ada", "posts": [read.json], "next_before": None}

    for _ in range(2):
        gone = web.request("DELETE", f"/posts/{post_id}")
        assert (gone.status, gone.json) == (200, {"message": "Post deleted successfully"})
    assert_error(web.get(f"/posts/{post_id}"), 404)
    assert web.get("/posts?author_id=ada").json["posts"] == []
    types = OutboxEvent.objects.order_by("id").values_list("type", flat=True)
    assert list(types) == ["POST_CREATED", "POST_DELETED"]


def test_posts_are_paged_by_before_to_the_first(web: Web) -> None:
    ids = [posted(web, "ada", str(number)) for number in range(7)]
    posted(web, "bob")
    seen: list[int] = []
    before = ""
    while True:
        page = web.get(f"/posts?author_id=ada&limit=3{before}").json
        seen += [post["post_id"] for post in page["posts"]]
        if page["next_before"] is None:
            break
        assert len(page["posts"]) == 3
        before = f"&before={page['next_before']}"
    assert seen == ids[::-1]
    assert web.get(f"/posts?author_id=ada&before={(1 << 64) - 1}").json["next_before"] is None


def test_follow_and_unfollow_and_again(web: Web) -> None:
    for _ in range(2):
        answer = web.post("/follow", pair())
        assert (answer.status, answer.json) == (200, {"message": "followed successfully"})
    assert follows() == {("grace", "ada")}
    for _ in range(2):
        answer = unfollow(web, pair())
        assert (answer.status, answer.json) == (200, {"message": "unfollowed successfully"})
    assert follows() == set()
    assert [event.type for event in OutboxEvent.objects.order_by("id")] == [
        "FOLLOWED",
        "UNFOLLOWED",
    ]


def test_a_proxy_may_drop_the_body_of_a_delete(web: Web) -> None:
    for body in (None, pair("a b", "é&=")):
        web.post("/follow", pair("a b", "é&="))
        assert unfollow(web, body, follower_id="a b", followee_id="é&=").status == 200
        assert follows() == set()
    web.post("/follow", pair())
    assert_error(unfollow(web, pair(), follower_id="grace", followee_id="bob"), 400)
    for no_pair in (b"[]", b"null", b'""', b"0", b"false"):
        query = "/follow?follower_id=grace&followee_id=ada"
        assert_error(web.request("DELETE", query, no_pair, JSON), 400)
    assert_error(unfollow(web, None, follower_id="grace"), 400)
    assert_error(unfollow(web), 400)
    assert_error(web.request("DELETE", "/follow?follower_id=a&followee_id=b&followee_id=b"), 400)
    assert follows() == {("grace", "ada")}


def test_the_lists_of_users_are_paged(web: Web) -> None:
    names = [f"user {number:02}" for number in range(25)]
    for name in names:
        web.post("/follow", pair(name, "ada"))
        web.post("/follow", pair("ada", name))
    FeedAuthor.objects.create(author_id="ada", followers=24)  # the handler is one behind
    for kind, count in (("following", 25), ("followers", 24)):
        seen: list[str] = []
        cursor = ""
        while True:
            page = web.get(f"/users/ada/{kind}?limit=10{cursor}").json
            assert (page["user_id"], page["count"]) == ("ada", count)
            seen += page["users"]
            if page["next_cursor"] is None:
                break
            assert len(page["users"]) == 10
            cursor = f"&cursor={page['next_cursor']}"
        assert sorted(seen) == names
        assert len(seen) == len(set(seen))
    unfollow(web, pair("user 03", "ada"))
    assert "user 03" not in web.get("/users/ada/followers?limit=100").json["users"]
    nobody = {"user_id": "nobody", "count": 0, "users": [], "next_cursor": None}
    assert web.get("/users/nobody/followers").json == nobody
    assert web.get("/users/nobody/following").json == nobody


def test_each_key_is_done_once(web: Web) -> None:
    keyed = JSON | {"Idempotency-Key": "k1"}
    body = json.dumps({"author_id": "ada", "content": "once"}).encode()
    first = web.request("POST", "/posts", body, keyed)
    again = web.request("POST", "/posts", body, keyed)
    assert (again.body, again.header("idempotent-replayed")) == (first.body, "true")
    assert Post.objects.count() == 1
    path = f"/posts/{first.json['post_id']}"
    gone = [web.request("DELETE", path, None, {"Idempotency-Key": "k2"}) for _ in range(2)]
    assert [each.status for each in gone] == [200, 200]
    assert gone[1].header("idempotent-replayed") == "true"
    web.request("POST", "/follow", json.dumps(pair()).encode(), keyed)
    unfollow(web, pair())
    told = web.request("POST", "/follow", json.dumps(pair()).encode(), keyed)
    assert told.header("idempotent-replayed") == "true"
    assert follows() == set()  # what the key was used for was done before
    query = f"/follow?{urlencode(pair())}"
    assert web.request("DELETE", query, None, {"Idempotency-Key": "k3"}).status == 200
    other = f"/follow?{urlencode(pair('bob'))}"
    assert_error(web.request("DELETE", other, None, {"Idempotency-Key": "k3"}), 422)


def test_answers_about_an_erased_user_are_emptied(web: Web) -> None:
    """Byte for byte what was kept. Those about others stay, and nothing is done a second time."""
    requests = [
        (json.dumps({"author_id": name, "content": "x"}).encode(), {"Idempotency-Key": name})
        for name in ("ada", "bob")
    ]
    first = [web.request("POST", "/posts", body, JSON | key) for body, key in requests]
    assert erase_user("ada").answers == 1
    again = [web.request("POST", "/posts", body, JSON | key) for body, key in requests]
    assert_error(again[0], 410)
    assert (again[1].status, again[1].body) == (202, first[1].body)
    assert Post.objects.count() == 2


def test_follow_twice_at_once(web: Web) -> None:
    start = threading.Barrier(20)

    def run(number: int) -> int:
        start.wait(PATIENCE)
        return web.post("/follow", pair(f"f{number % 2}")).status

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(run, range(20))) == {200}
    assert follows() == {("f0", "ada"), ("f1", "ada")}
    assert OutboxEvent.objects.count() == 2


def test_ids_of_many_posts_at_once_are_different(web: Web) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda number: posted(web, f"a{number}"), range(200)))
    assert len(set(ids)) == 200
    assert Post.objects.count() == 200
    held = {str(event_id) for event_id in OutboxEvent.objects.values_list("event_id", flat=True)}
    assert held == {events_of_post(id_)[0] for id_ in ids}


# -- what is sent by mistake


def test_an_id_may_be_nearly_anything(web: Web) -> None:
    for user_id in GOOD_IDS:
        post_id = posted(web, user_id)
        assert web.get(f"/posts/{post_id}").json["author_id"] == user_id
        asked = web.get(f"/posts?{urlencode({'author_id': user_id})}")
        assert [post["post_id"] for post in asked.json["posts"]] == [post_id]
        assert web.post("/follow", pair(user_id, "ada" * 3)).status == 200
        read = web.get(f"/users/{quote(user_id, safe='')}/following")
        assert (read.json["user_id"], read.json["users"]) == (user_id, ["adaadaada"])


@pytest.mark.parametrize("user_id", BAD_IDS, ids=range(len(BAD_IDS)))
@pytest.mark.usefixtures("nothing_stored")
def test_what_no_id_can_be(refusing_web: Web, user_id: str) -> None:
    web = refusing_web
    in_path = quote(user_id, safe="")
    answers = [
        web.post("/posts", {"author_id": user_id, "content": "x"}),
        web.post("/follow", pair(user_id)),
        web.post("/follow", pair("a", user_id)),
        unfollow(web, pair(user_id)),
        unfollow(web, None, **pair("a", user_id)),
        web.get(f"/posts?{urlencode({'author_id': user_id})}"),
    ]
    if user_id:  # an empty one is another path
        answers += [web.get(f"/users/{in_path}/{kind}") for kind in ("following", "followers")]
    for answer in answers:
        body = assert_error(answer, 400)
        assert body["details"], body


@pytest.mark.parametrize("value", [1, None, True, ["a"], {"a": 1}], ids=range(5))
@pytest.mark.usefixtures("nothing_stored")
def test_ids_and_contents_are_strings(refusing_web: Web, value: object) -> None:
    web = refusing_web
    assert_error(web.post("/posts", {"author_id": value, "content": "x"}), 400)
    assert_error(web.post("/posts", {"author_id": "a", "content": value}), 400)
    assert_error(web.post("/follow", {"follower_id": value, "followee_id": "a"}), 400)
    assert_error(web.post("/follow", {"follower_id": "a"}), 400)
    assert_error(web.post("/follow", value), 400)
    assert_error(web.post("/posts", value), 400)


@pytest.mark.usefixtures("nothing_stored")
def test_contents_that_cannot_be(refusing_web: Web) -> None:
    web = refusing_web
    for content in ("", " \n", "x" * 10_001, "𝄞" * 10_001):
        assert_error(web.post("/posts", {"author_id": "a", "content": content}), 400)
    for escape in (r"a\u0000b", LONE_SURROGATE, r"\udc00\ud800", r"\x"):
        assert_error(raw_post(web, "/posts", f'{{"author_id": "a", "content": "{escape}"}}'), 400)
        assert_error(raw_post(web, "/posts", f'{{"author_id": "{escape}", "content": "a"}}'), 400)
        assert_error(
            raw_post(web, "/follow", f'{{"follower_id": "{escape}", "followee_id": "a"}}'), 400
        )
    assert_error(raw_post(web, "/posts", '{"author_id": "a", "content": "a\0"}'), 400)
    assert_error(raw_post(web, "/posts", '{"author_id": "a", "content": "\ud800"}'), 400)
    twice = '{"author_id": "a", "content": "x", "content": "y"}'
    assert_error(raw_post(web, "/posts", twice), 400)


def test_the_longest_content_is_taken(web: Web) -> None:
    for content in ("x" * 10_000, "𝄞" * 10_000):
        post_id = posted(web, "ada", content)
        assert web.get(f"/posts/{post_id}").json["content"] == content


@pytest.mark.usefixtures("nothing_stored")
def test_nobody_follows_himself(refusing_web: Web) -> None:
    body = assert_error(refusing_web.post("/follow", pair("ada", "ada")), 400)
    assert body["details"] == [
        {"field": "followee_id", "message": "A user cannot follow themselves."}
    ]
    assert unfollow(refusing_web, pair("x", "y")).status == 200  # what is not followed


@pytest.mark.parametrize("post_id", NO_POST_IDS, ids=range(len(NO_POST_IDS)))
@pytest.mark.usefixtures("nothing_stored")
def test_what_no_post_can_be(refusing_web: Web, post_id: str) -> None:
    assert_error(refusing_web.get(f"/posts/{post_id}"), 404)
    assert_error(refusing_web.request("DELETE", f"/posts/{post_id}"), 404)


def test_a_post_that_never_was_and_the_number_behind_one(web: Web) -> None:
    post_id = posted(web)
    for number in (1, post_id + 1, post_id - 2, TOO_BIG - 1):
        assert_error(web.get(f"/posts/{number}"), 404)
        assert_error(web.request("DELETE", f"/posts/{number}"), 404)
    assert OutboxEvent.objects.count() == 1


@pytest.mark.parametrize(
    "query",
    [
        *("", "author_id=", "author_id=a&author_id=a", "author_id=a%00", "author_id=a%2Fb"),
        *("author_id=a&limit=0", "author_id=a&limit=101", "author_id=a&limit=abc"),
        *("author_id=a&limit=-1", "author_id=a&limit=1.0", "author_id=a&limit=", "limit=1"),
        *("author_id=a&before=-1", "author_id=a&before=abc", "author_id=a&before="),
        *("author_id=a&before=18446744073709551616", "author_id=a&before=1&before=1"),
    ],
)
def test_queries_of_posts_that_are_refused(refusing_web: Web, query: str) -> None:
    assert_error(refusing_web.get(f"/posts?{query}"), 400)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=abc", "limit=", "limit=1&limit=1", "cursor="),
        *("cursor=x", "cursor=%00", "cursor=_____w", "cursor=YQ==", f"cursor={'A' * 2000}"),
        *("cursor=AA", "cursor=wrI=x"),
    ],
)
def test_queries_of_users_that_are_refused(refusing_web: Web, query: str) -> None:
    for kind in ("following", "followers"):
        assert_error(refusing_web.get(f"/users/ada/{kind}?{query}"), 400)
    for cursor in ("YQ", "MTAyNC9h", "OTk5OTk5OTk5OTk5OTk5L2E"):  # of no bucket
        assert_error(refusing_web.get(f"/users/ada/followers?cursor={cursor}"), 400)


@pytest.mark.usefixtures("nothing_stored")
def test_paths_and_methods_that_there_are_not(refusing_web: Web) -> None:
    web = refusing_web
    for path in (
        "/posts/",
        "/posts/1/2",
        "/follow/",
        "/users/a",
        "/users/a/friends",
        "/users//following",
    ):
        assert_error(web.get(path), 404)
    for method, path in (
        ("PUT", "/posts"),
        ("POST", "/posts/1"),
        ("GET", "/follow"),
        ("POST", "/users/a/following"),
    ):
        answer = web.request(method, path, b"{}", JSON)
        assert_error(answer, 405)
        assert answer.header("allow")
    for path in ("/posts", "/follow"):
        assert_error(web.request("POST", path, b"{}", {"Content-Type": "text/plain"}), 415)
        assert_error(web.request("POST", path, b"{", JSON), 400)
        assert_error(web.request("POST", path, b" " * 1_048_577, JSON), 413)


def test_bytes_that_are_no_utf8_in_a_path(refusing_web: Web) -> None:
    """They are no text, so they are no id; what they would become may be that of another."""
    assert_error(refusing_web.get("/users/%FF/following"), 400)
    assert_error(refusing_web.get("/users/%ED%A0%80/following"), 400)
    assert_error(refusing_web.get("/feeds/%FF"), 400)
    assert refusing_web.get("/feeds/%EF%BF%BD").status == 200  # it may be meant
