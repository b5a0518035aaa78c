"""Cached feeds against the truth: what would be shown of them, in the snapshot of the comparison."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from feeds import cache
from feeds.cache import Kept
from feeds.checking.compare import FeedComparison, FeedDifference
from feeds.fanout.owed import OWED
from feeds.reading.changes import Changes, snapshot_of
from outbox.database.arrays import text_array_literal

__all__ = ["compare_cached"]

# What a cached feed of this user with this floor is to hold: the posts that are not merged into it when
# it is read, and whether they are still to come.
_EXPECTED = f"""
    WITH missing AS (
        SELECT posts.id AS post_id, follows.bucket
        FROM follows JOIN posts ON posts.author_id = follows.followee_id
        WHERE follows.follower_id = %s AND follows.active
          AND NOT follows.followee_id = ANY(%s::text[])
          AND posts.deleted_at IS NULL AND posts.id >= %s
        UNION ALL
        SELECT id, NULL FROM posts WHERE author_id = %s AND deleted_at IS NULL AND id >= %s
    )
    SELECT post_id, {OWED} FROM missing
"""


def compare_cached(users: Sequence[str], found: FeedComparison) -> list[str]:
    """Compare the cached feeds of these users, in the open transaction, whose snapshot is older than
    what Redis says now: what a slice has finished before it, the cache holds by then. Returns the
    users whose cached feed this snapshot cannot judge: it has been filled since.

    Raises CacheUnavailable.
    """
    changes = Changes()
    with connection.cursor() as cursor:
        cursor.execute(*changes.statement())
        rows = cursor.fetchall()
        changes.learn(rows)
    here = snapshot_of(rows[0][0])
    newer = []
    for user, kept in cache.kept_feeds(users).items():
        if snapshot_of(kept.snapshot).shows_more_than(here):
            newer.append(user)
        elif not changes.believes(kept, user):
            found.counts["cached, not believed"] += 1  # no reader is shown it
        else:
            found.counts["cached"] += 1
            found.add(_differences(user, kept, changes))
    return newer


def _differences(user: str, kept: Kept, changes: Changes) -> list[FeedDifference]:
    shown = set(kept.ids) - changes.deleted
    merged = text_array_literal(kept.merged)
    with connection.cursor() as cursor:
        cursor.execute(_EXPECTED, (user, merged, kept.floor, user, kept.floor))
        expected = dict(cursor.fetchall())
        cursor.execute(
            "SELECT id, author_id FROM posts WHERE id = ANY(%s)", (sorted(shown - set(expected)),)
        )
        # One that this snapshot does not know was posted behind it.
        wrong = cursor.fetchall()
    merged_authors = set(kept.merged)
    return [
        *(
            FeedDifference(user, post, "", "missing in the cache")
            for post, is_owed in expected.items()
            if post not in shown and not is_owed
        ),
        *(
            FeedDifference(user, post, author, "wrong in the cache")
            for post, author in wrong
            if author not in merged_authors
        ),
    ]
