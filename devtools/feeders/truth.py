"""Feeds in the end: what is stored of what was answered, and every feed, page by page, against the
truth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from django.db import connection, transaction

from devtools.feeders.history import FeedHistory, Kind
from devtools.feeders.users import FeederClient, walk
from feeds.checking.compare import FeedComparison, compare_entries
from feeds.checking.followers import wrong_counts

__all__ = ["compare_stored", "lost", "slices_settle", "wrong_feeds", "wrong_numbers"]

_TRUTH = """
    SELECT id FROM posts
    WHERE deleted_at IS NULL AND (author_id = %s OR author_id IN (
        SELECT followee_id FROM follows WHERE follower_id = %s AND active))
    ORDER BY id DESC
"""


def slices_settle(within: float) -> bool:
    """Wait until no slice is open; whether none is."""
    give_up = time.monotonic() + within
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM feed_slices)")
            if not cursor.fetchone()[0]:
                return True
        if time.monotonic() > give_up:
            return False
        time.sleep(0.1)


def wrong_feeds(base_url: str, users: Sequence[str]) -> Iterator[str]:
    """Feeds that differ from the truth, first as they are, then again: the second walk is answered
    from the cache where the first one has filled it."""
    client = FeederClient(base_url)
    try:
        for user in (*users, *users):
            with connection.cursor() as cursor:
                cursor.execute(_TRUTH, (user, user))
                truth = [row[0] for row in cursor.fetchall()]
            found = walk(client, user)
            if found != truth:
                missing, false = set(truth) - set(found), set(found) - set(truth)
                yield f"the feed of {user} lacks {sorted(missing)} and has {sorted(false)} too much"
    finally:
        client.close()


def compare_stored(users: Sequence[str]) -> FeedComparison:
    """Stored entries of these users against the truth, in one snapshot."""
    found = FeedComparison()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        compare_entries(users, found)
    return found


def wrong_numbers(users: Sequence[str]) -> Iterator[str]:
    """Kept numbers of followers that are not those who follow."""
    with transaction.atomic():
        wrong = wrong_counts(users)
    yield from (
        f"{each.kept} followers of {each.author_id} are counted, {each.right} follow"
        for each in wrong
    )


def lost(history: FeedHistory) -> Iterator[str]:
    """What was answered and is not so in the database."""
    posts = {change.post_id for change in history.done(Kind.POST)}
    gone = {change.post_id for change in history.done(Kind.DELETE)}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, deleted_at IS NOT NULL FROM posts WHERE id = ANY(%s)", (list(posts),)
        )
        stored = dict(cursor.fetchall())
        cursor.execute("SELECT follower_id, followee_id FROM follows WHERE active")
        follows = set(cursor.fetchall())
    yield from (f"post {id_} was accepted and is not stored" for id_ in sorted(posts - set(stored)))
    yield from (f"post {id_} was deleted and is not" for id_ in sorted(gone) if not stored.get(id_))
    pairs = {}
    for change in history.changes:
        if change.kind in (Kind.FOLLOW, Kind.UNFOLLOW):
            pairs[change.user, change.author] = change
    for pair, last in pairs.items():
        if last.done and (pair in follows) is not (last.kind is Kind.FOLLOW):
            yield f"{last.kind} of {pair} was answered and is not so"
