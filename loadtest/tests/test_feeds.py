"""The generator of posts and reads against a server whose feeds are right, late, or short of a post."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import CommandError, call_command

from loadtest.feeds import Population, generate_feeds
from loadtest.feeds_report import FeedsPlan, FeedsReport
from loadtest.thresholds import Threshold


class Feeds:
    """The truth in memory. The post with the number `lost` is never shown, none before it was looked
    for `late` times; a `deaf` one answers no read."""

    def __init__(self, *, lost: int = 0, late: int = 0, deaf: bool = False) -> None:
        self.lost, self.late, self.deaf = lost, late, deaf
        self.follows: set[tuple[str, str]] = set()
        self.posts: list[tuple[int, str]] = []
        self.looks: dict[tuple[str, int], int] = defaultdict(int)
        self.guard = threading.Lock()

    def post(self, author: str) -> int:
        with self.guard:
            self.posts.append(((len(self.posts) + 1) * 2, author))
            return self.posts[-1][0]

    def page(self, user: str, limit: int, before: int) -> list[int]:
        shown = []
        for post_id, author in reversed(self.posts):
            if post_id < before and (author == user or (user, author) in self.follows):
                self.looks[user, post_id] += 1
                if post_id // 2 != self.lost and self.looks[user, post_id] >= self.late:
                    shown.append(post_id)
            if len(shown) == limit:
                break
        return shown


@contextmanager
def served(feeds: Feeds) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/health/ready":
                self.tell(200, {"status": "ready", "checks": {"database": "healthy"}})
                return
            if feeds.deaf:
                self.tell(503, {})
                return
            asked = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            user = url.path.removeprefix("/feeds/")
            page = feeds.page(user, asked.get("limit", 20), asked.get("before", 1 << 63))
            self.tell(200, {"user_id": user, "post_ids": page})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/posts":
                self.tell(202, {"post_id": feeds.post(body["author_id"])})
                return
            change = feeds.follows.add if self.command == "POST" else feeds.follows.discard
            change((body["follower_id"], body["followee_id"]))
            self.tell(200, {"message": "ok"})

        do_DELETE = do_POST

        def tell(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def plan(url: str, **more: Any) -> FeedsPlan:
    wanted: dict[str, Any] = {"rate": 200, "seconds": 0.5, "users": 20, "follows": 5, "settle": 1.0}
    return FeedsPlan(url=url, arrivals="even", run="run", **{**wanted, **more})


def test_every_post_is_looked_for_in_the_feeds_of_its_sample() -> None:
    feeds = Feeds()
    with served(feeds) as url:
        tally = generate_feeds(plan(url))
    assert (tally.due, tally.answered, tally.not_sent, tally.errors) == (100, 100, 0, {})
    assert {post.post_id for post in tally.posts} == {post_id for post_id, _ in feeds.posts}
    assert tally.latency["post"].count == len(tally.posts) > 0
    assert (tally.lost, tally.unchecked) == (0, 0)
    authors = dict(feeds.posts)
    for post in tally.posts:
        assert len(set(post.followers)) == len(post.followers) <= 3
        assert all((user, authors[post.post_id]) in feeds.follows for user in post.followers)
    assert tally.checked == sum(len(post.followers) for post in tally.posts)
    assert tally.lag.count + tally.unwatched == len(tally.posts)


def test_a_post_that_a_feed_never_shows_is_lost_and_named() -> None:
    with served(Feeds(lost=2)) as url:
        tally = generate_feeds(plan(url, settle=0.3))
    [post] = [post for post in tally.posts if post.post_id == 4]
    assert post.followers  # else nobody could miss it: take another seed
    assert tally.lost == len(post.followers)
    assert {user for _, user in tally.examples} == set(post.followers)
    report = FeedsReport(plan(url), tally, {}, [Threshold.parse("lost>0")])
    assert [each.text for each in report.crossed()] == ["lost>0"]
    assert "lost: post 4 in the feed of run-" in report.in_words()
    assert report.as_dict()["examples_of_lost"][0]["post_id_str"] == "4"


def test_a_post_that_comes_late_is_not_lost() -> None:
    with served(Feeds(late=4)) as url:
        tally = generate_feeds(plan(url))
    assert tally.lost == 0
    assert tally.lag.count > 0


def test_of_a_server_that_does_not_tell_nothing_is_said() -> None:
    with served(Feeds(deaf=True)) as url:
        tally = generate_feeds(plan(url, settle=0.1))
    assert tally.unchecked > 0
    assert tally.errors == {"read: status 503": tally.due - tally.answered}
    report = FeedsReport(plan(url), tally, {}, [Threshold.parse("lost>0")])
    assert report.crossed()
    assert "how many are lost is not known" in report.in_words()


def test_the_people_are_the_same_for_the_same_seed_and_a_few_are_popular() -> None:
    people, again = Population(plan("http://x", users=200)), Population(plan("http://x", users=200))
    assert people.followers == again.followers
    assert [people.author() for _ in range(50)] == [again.author() for _ in range(50)]
    assert all(followee not in followers for followee, followers in people.followers.items())
    sizes = sorted((len(each) for each in people.followers.values()), reverse=True)
    assert sizes[0] > 5 * sizes[len(sizes) // 2]


def test_the_command_says_what_it_found_and_fails_if_it_may_not_be(tmp_path: Any) -> None:
    out, path = StringIO(), tmp_path / "feeds.json"
    options = ("--profile", "feeds", "--rate", "100", "--duration", "300ms", "--users", "20")
    with served(Feeds(lost=1)) as url:
        arguments = (
            *options,
            "--url",
            url,
            "--settle",
            "200ms",
            "--seed",
            "1",
            "--json",
            str(path),
        )
        with pytest.raises(CommandError, match="Crossed: lost>0"):
            call_command("generate_load", *arguments, "--fail-if", "lost>0", stdout=out)
    assert "crossed lost>0" in out.getvalue()
    assert json.loads(path.read_text())["values"]["lost"] > 0
    for wrong in (("--html", "x"), ("--fail-if", "duplicates>0")):
        with pytest.raises(CommandError) as told:
            call_command("generate_load", *options, *wrong)
        assert told.value.returncode == 2
