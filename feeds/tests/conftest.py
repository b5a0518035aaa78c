"""Fixtures of the feeds' tests."""

from __future__ import annotations

import pytest
import redis
from django.conf import settings

from feeds import cache
from feeds.reading import changes
from feeds.reading.changes import Changes
from feeds.tests.cached import assert_right
from feeds.tests.stage import follow, post, settle


@pytest.fixture
def no_cached_feeds() -> None:
    """An empty Redis: cached feeds of an earlier test would be of users of the same name."""
    with redis.Redis.from_url(settings.FEED_CACHE_URL) as server:
        server.flushdb()


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows of no change, and has not lost Redis."""
    monkeypatch.setattr(changes, "CHANGES", Changes())
    monkeypatch.setattr(cache, "_away_until", 0.0)


@pytest.fixture
def cached(no_cached_feeds: None, new_process: None) -> int:
    """The feed of `ann`, who follows `bob`, is cached with his one post in it; its id."""
    follow("ann", "bob")
    only = post("bob")
    settle()
    assert_right("ann", hit=False)
    assert_right("ann", hit=True)
    return only
