"""/ws/feeds/{user_id}: who hears of which post, also when the follow is a moment old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apikeys import services as key_services
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.posts import create_posts, follow, new_post
from devtools.testing.processes import child_environment
from devtools.testing.web import Web, web_process
from feeds import services
from feeds.models import FeedLog
from feeds.services import Pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def web_of_module(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    with django_db_blocker.unblock(), web_process() as started:
        yield started


@pytest.fixture
def web(web_of_module: Web, transactional_db: None) -> Web:
    """Its database is empty, and it has noticed."""

    def knows() -> bool:
        with live(web_of_module, "nobody") as client:
            return opened(client) == 0

    assert settles(knows)
    return web_of_module


@contextmanager
def live(web: Web, user_id: str, query: str = "", key: str = "") -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{web.port}/ws/feeds/{quote(user_id, safe='')}{query}"
    headers = {"X-API-Key": key} if key else {}
    with connect(url, additional_headers=headers, proxy=None, open_timeout=PATIENCE) as client:
        yield client


def heard(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=PATIENCE))
    return message


def opened(client: ClientConnection) -> int:
    message = heard(client)
    assert message["type"] == "open", message
    return int(message["seq"])


def post(author_id: str) -> int:
    [post_id] = create_posts([new_post(author_id, "hello")])
    return post_id


def test_posts_and_deletions_of_whom_he_follows_and_his_own(web: Web) -> None:
    follow([Pair("reader", "author 1"), Pair("author 1", "stranger")])
    with live(web, "reader") as client:
        start = opened(client)
        first = post("author 1")
        post("stranger")
        own = post("reader")
        services.delete_posts([first])
        assert [heard(client) for _ in range(3)] == [
            {
                "seq": start + 1,
                "post_id": first,
                "post_id_str": str(first),
                "author_id": "author 1",
            },
            {"seq": start + 3, "post_id": own, "post_id_str": str(own), "author_id": "reader"},
            {"seq": start + 4, "deleted": first, "post_id_str": str(first)},
        ]
    with live(web, "reader", f"?since={start + 1}") as client:
        assert opened(client) == start + 1
        assert [heard(client)["seq"] for _ in range(2)] == [start + 3, start + 4]


def test_what_is_not_kept_any_more_is_a_gap(web: Web) -> None:
    with live(web, "reader") as client:
        start = opened(client)
        made = [post("reader") for _ in range(3)]
        assert [heard(client)["post_id"] for _ in range(3)] == made
    FeedLog.objects.filter(seq__lte=start + 1).delete()  # as beat does

    def is_noticed() -> bool:
        with live(web, "reader", f"?since={start}") as client:
            return bool(heard(client)["type"] == "gap")

    assert settles(is_noticed, within=60)
    with live(web, "reader", f"?since={start}") as client:
        assert heard(client) == {"type": "gap", "oldest": start + 2}
        assert opened(client) == start + 1
        assert [heard(client)["post_id"] for _ in range(2)] == made[1:]


def test_a_scope_is_asked_for(web: Web) -> None:
    def key_of(*scopes: str) -> str:
        return key_services.create_key(
            name=f"of-{len(scopes)}",
            scopes=scopes,
            expires_at=None,
            by="test",
            at=datetime.now(UTC),
        ).key

    reading, other = key_of("feeds:read"), key_of("feeds:write", "notifications:read")
    with live(web, "reader", key=reading) as client:
        opened(client)
    with pytest.raises(InvalidStatus) as caught, live(web, "reader", key=other):
        pass
    assert caught.value.response.status_code == 403
    for key, status in ((reading, 200), (other, 403)):
        for path in ("/feeds/a", "/posts?author_id=a", "/users/a/following", "/users/a/followers"):
            assert web.request("GET", path, headers={"X-API-Key": key}).status == status
    pair, words = {"follower_id": "a", "followee_id": "b"}, {"author_id": "a", "content": "x"}
    for key, statuses in ((reading, (403, 403)), (other, (202, 200))):
        told = [
            web.post(path, body, {"X-API-Key": key})
            for path, body in (("/posts", words), ("/follow", pair))
        ]
        assert tuple(answer.status for answer in told) == statuses


def test_follows_change_while_the_socket_is_open(web: Web) -> None:
    """From the answer to a follow or unfollow on, the very next post is told by it."""
    with live(web, "reader") as client:
        opened(client)
        for _ in range(10):
            follow([Pair("reader", "author")])
            assert heard_post(client, "author")
            services.unfollow([Pair("reader", "author")])
            post("author")
            assert heard_post(client, "reader")  # so the one before has been passed by


def test_a_follow_that_was_open_for_long_counts_from_its_commit(web: Web) -> None:
    """Its transaction began before the look that its commit comes after: by time or id it would be
    old."""
    given = child_environment()["DATABASE_URL"]
    with live(web, "reader") as client, psycopg.connect(given) as slow:
        opened(client)
        slow.execute(
            "WITH begun AS (INSERT INTO follows (follower_id, followee_id)"
            " VALUES ('reader', 'author'))"
            " INSERT INTO feed_changes (kind, follower_id, author_id)"
            " VALUES ('follow', 'reader', 'author')"
        )
        for _ in range(3):  # looks pass meanwhile
            follow([Pair("reader", "other")])
            assert heard_post(client, "other")
            services.unfollow([Pair("reader", "other")])
        post("author")
        assert heard_post(client, "reader")
        slow.commit()
        assert heard_post(client, "author")


def heard_post(client: ClientConnection, author_id: str) -> bool:
    post_id = post(author_id)
    return bool(heard(client)["post_id"] == post_id)


@pytest.mark.parametrize("user_id", ["a/b", ".", "..", "a\nb", "\x7f", "x" * 256])
def test_a_user_id_that_is_none(web: Web, user_id: str) -> None:
    with pytest.raises(InvalidStatus) as caught, live(web, user_id):
        pass
    assert caught.value.response.status_code == 400
    body = json.loads(caught.value.response.body or b"")
    assert [each["field"] for each in body["details"]] == ["user_id"]


def test_a_user_id_that_is_no_text_is_not_that_of_somebody_else(web: Web) -> None:
    """Its bytes become U+FFFD, which a user id may have."""
    url = f"ws://127.0.0.1:{web.port}/ws/feeds/%FF"
    with pytest.raises(InvalidStatus) as caught, connect(url, proxy=None, open_timeout=PATIENCE):
        pass
    assert caught.value.response.status_code == 400
    with live(web, "\ufffd") as client:
        opened(client)


def test_user_ids_are_decoded_once(web: Web) -> None:
    name = "50%25 off, ü?"
    with live(web, name) as client:
        opened(client)
        assert heard_post(client, name)


def test_the_post_of_a_request_is_heard(web: Web) -> None:
    """Over HTTP, as clients do it: the answer and the message name the same post."""
    with live(web, "writer") as client:
        opened(client)
        answer = web.post("/posts", {"author_id": "writer", "content": "hello"})
        assert answer.status == 202
        assert heard(client)["post_id"] == answer.json["post_id"]
