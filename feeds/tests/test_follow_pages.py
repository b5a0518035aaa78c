"""Whom a user follows, and by whom he is followed: the page and the number are of one moment."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from feeds.queries import follower_of, followers_page, following_page, user_of
from feeds.tests.stage import Other, apply_events, follow, unfollow

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_cached_feeds"),
]

NAMES = [f"user{number}" for number in range(7)]


class Unfollowing:
    """Before every statement somebody else ends the next of these follows, and it is counted."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._left = list(pairs)

    def __call__(self, execute: Any, *statement: Any) -> Any:
        if self._left:
            Other(lambda: self._end(*self._left.pop())).join()
        return execute(*statement)

    def _end(self, follower: str, author: str) -> None:
        unfollow(follower, author)
        apply_events()


def test_follows_that_end_while_whom_one_follows_is_read() -> None:
    follow("ann", *NAMES)
    with connection.execute_wrapper(Unfollowing(*(("ann", name) for name in NAMES))):
        page = following_page("ann", limit=10)
    assert len(page.users) == page.in_all < len(NAMES)


def test_follows_that_end_while_followers_are_read() -> None:
    for name in NAMES:
        follow(name, "bob")
    apply_events()
    with connection.execute_wrapper(Unfollowing(*((name, "bob") for name in NAMES))):
        page = followers_page("bob", limit=10)
    assert len(page.users) == page.in_all < len(NAMES)


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
def test_pages_together_have_everybody_once(limit: int) -> None:
    follow("ann", *NAMES)
    for name in NAMES:
        follow(name, "bob")
    apply_events()
    whom, who = following_page("ann", limit=limit), followers_page("bob", limit=limit)
    following, followers = list(whom.users), list(who.users)
    while whom.next:
        whom = following_page("ann", limit=limit, after=user_of(whom.next))
        following += whom.users
    while who.next:
        who = followers_page("bob", limit=limit, after=follower_of(who.next))
        followers += who.users
    assert following == NAMES
    assert sorted(followers) == NAMES
    assert (whom.in_all, who.in_all) == (len(NAMES), len(NAMES))


def test_of_somebody_of_whom_nothing_is_known() -> None:
    for page in (following_page("ann", limit=2), followers_page("ann", limit=2)):
        assert (list(page.users), page.in_all, page.next) == ([], 0, None)
