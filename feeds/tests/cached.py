"""What tests of cached feeds share: pages as they are read, with the cache."""

from __future__ import annotations

from feeds import cache
from feeds.reading.pages import pages
from feeds.reading.questions import FeedPage, FeedQuestion
from feeds.tests.stage import truth
from restapi.lookup import run

__all__ = ["ask", "assert_right", "cache_is_back"]


def cache_is_back() -> None:
    """The moment is over in which it is left alone."""
    cache._away_until = 0.0


def ask(reader: str, limit: int = 20, **where: int) -> FeedPage:
    [page] = run(pages([FeedQuestion(reader, limit, **where)], deep=True), redis=cache.replies)
    assert page is not None
    return page


def assert_right(reader: str, *, hit: bool) -> None:
    page = ask(reader)
    assert (list(page.ids), page.hit) == (truth(reader)[:20], hit)
