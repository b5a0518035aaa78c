"""Cached feeds against the truth: what would be shown of them, in the snapshot of the comparison."""

from __future__ import annotations

from collections.abc import Sequence

from feeds import cache
from feeds.cache import Kept
from feeds.checking.compare import FeedComparison, FeedDifference
from feeds.fanout.slices import OWED
from feeds.models import Post
from feeds.reading.changes import Changes, snapshot_of
from outbox.database.arrays import text_array_literal
from outbox.database.ask import rows_of

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
    rows = rows_of(*changes.statement())
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
    expected = dict(rows_of(_EXPECTED, (user, merged, kept.floor, user, kept.floor)))
    # One that this snapshot does not know was posted behind it.
    wrong = Post.objects.filter(id__in=shown - set(expected)).exclude(author_id__in=kept.merged)
    return [
        *(
            FeedDifference(user, post, "", "missing in the cache")
            for post, is_owed in expected.items()
            if post not in shown and not is_owed
        ),
        *(
            FeedDifference(user, post, author, "wrong in the cache")
            for post, author in wrong.values_list("id", "author_id")
        ),
    ]
