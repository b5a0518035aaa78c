"""Cached feeds, whatever becomes of Redis."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings

from devtools.localstack.redis import redis_binary
from devtools.testing.pipeline import settles
from devtools.testing.processes import free_port
from devtools.testing.refusing_redis import REFUSALS, refusing
from feeds import cache
from feeds.cache import CacheUnavailable
from feeds.reading.pages import pages
from feeds.reading.questions import FeedQuestion
from feeds.tests.cached import ask, assert_right, cache_is_back
from feeds.tests.stage import apply_events, follow, post, settle, truth, work_off
from restapi.lookup import run

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds", "new_process"),
]


class OwnRedis:
    """A Redis process of the test."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url
        self.client = redis.Redis.from_url(url)

    def answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False


@contextmanager
def own_redis(directory: Path, *arguments: str) -> Iterator[OwnRedis]:
    """One that keeps no file by itself."""
    port = free_port()
    binary, _ = redis_binary(os.environ)
    command = [binary, "--port", str(port), "--dir", str(directory), "--save", "", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        server = OwnRedis(process, f"redis://127.0.0.1:{port}/0")
        try:
            assert settles(server.answers)
            yield server
        finally:
            server.client.close()
            process.kill()


class TestRedis:
    """Whatever becomes of it."""

    def test_it_is_flushed(self, cached: int) -> None:
        with redis.Redis.from_url(django_settings.FEED_CACHE_URL) as server:
            server.flushall()
        assert_right("ann", hit=False)
        assert_right("ann", hit=True)

    def test_it_comes_back_with_an_older_file(self, tmp_path: Path, settings: Any) -> None:
        follow("ann", "bob")
        post("bob")
        settle()
        with own_redis(tmp_path) as server:
            settings.FEED_CACHE_URL = server.url
            assert_right("ann", hit=False)
            assert_right("ann", hit=True)
            server.client.save()
            kept = server.client.dbsize()
            post("bob")
            settle()
            assert_right("ann", hit=True)
        with own_redis(tmp_path) as server:
            settings.FEED_CACHE_URL = server.url
            assert server.client.dbsize() == kept  # the older feed is there
            assert_right("ann", hit=False)
            assert_right("ann", hit=True)

    def test_another_has_taken_its_place(self, tmp_path: Path, settings: Any) -> None:
        """Who still has a connection to the old master finds the run id, and what was kept."""
        follow("ann", "bob")
        settle()
        master = settings.FEED_CACHE_URL
        with own_redis(tmp_path) as replaced:
            settings.FEED_CACHE_URL = replaced.url
            assert_right("ann", hit=False)
            replaced.client.replicaof("127.0.0.1", free_port())
            settings.FEED_CACHE_URL = master
            post("bob")
            settle()
            settings.FEED_CACHE_URL = replaced.url
            assert_right("ann", hit=False)

    def test_it_evicts(self, tmp_path: Path, settings: Any) -> None:
        arguments = ("--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru")
        users = [f"user-{place}" * 20 for place in range(2000)]
        some = users[::100]
        for user in some:
            follow(user, "bob")
        with own_redis(tmp_path, *arguments) as server:
            settings.FEED_CACHE_URL = server.url
            for at in range(0, len(users), 200):
                questions = [FeedQuestion(user, 20) for user in users[at : at + 200]]
                run(pages(questions, deep=True), redis=cache.replies)
            post("bob")
            settle()
            for user in some:
                assert ask(user).ids == truth(user)
            assert server.client.info("stats")["evicted_keys"] > 0

    @pytest.mark.parametrize("refusal", REFUSALS)
    def test_it_refuses(self, refusal: str, tmp_path: Path, settings: Any) -> None:
        users = ("ann", "eve")
        for user in users:
            follow(user, "bob")
        post("bob")
        settle()
        with own_redis(tmp_path) as server:
            settings.FEED_CACHE_URL = server.url
            assert_right("ann", hit=False)
            with refusing(refusal, server.url):
                for user in users:
                    assert ask(user).ids == truth(user)
                post("bob")
                apply_events()
                work_off()
            cache_is_back()
            settle()
            for user in users:
                assert ask(user).ids == truth(user)

    def test_it_hangs(self, tmp_path: Path, settings: Any) -> None:
        follow("ann", "bob")
        settle()
        with own_redis(tmp_path) as server:
            settings.FEED_CACHE_URL = server.url
            assert_right("ann", hit=False)
            server.process.send_signal(signal.SIGSTOP)
            post("bob")
            apply_events()
            assert work_off() == 0
            assert_right("ann", hit=False)
            assert_right("ann", hit=False)
            server.process.send_signal(signal.SIGCONT)
            cache_is_back()
            settle()
            assert ask("ann").ids == truth("ann")

    def test_a_merged_author_does_not_wait_for_it(self, settings: Any) -> None:
        """What he posts is read from the posts; fan-out waits."""
        settings.FEED_MERGE_FOLLOWERS = 1
        follow("ann", "star")
        settle()
        settings.FEED_CACHE_URL = f"redis://127.0.0.1:{free_port()}/0"
        new = post("star")
        assert ask("ann").ids == [new]
        apply_events()
        assert work_off() == 0
        assert ask("ann").ids == [new]

    def test_it_is_down(self, cached: int, settings: Any) -> None:
        settings.FEED_CACHE_URL = f"redis://127.0.0.1:{free_port()}/0"
        assert_right("ann", hit=False)
        assert_right("ann", hit=False)
        with pytest.raises(CacheUnavailable):
            cache.touch_users(["ann"])
        with pytest.raises(CacheUnavailable):
            cache.add_entries([("ann", cached)], as_of=1)
