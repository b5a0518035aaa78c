"""Entries and cached feeds against the truth, in one snapshot (docs/feeds.md#checking). An entry that
readers show and should not is wrong; one that they hide is litter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from django.conf import settings

from feeds.fanout.slices import OWED
from outbox.database.arrays import text_array_literal
from outbox.database.ask import rows_of

__all__ = ["DIFFERENCES_SHOWN", "FeedComparison", "FeedDifference", "compare_entries"]

DIFFERENCES_SHOWN = 50


class FeedDifference(NamedTuple):
    """A post that a page of a user shows wrongly or lacks."""

    user_id: str
    post_id: int
    author_id: str
    what: str


@dataclass(slots=True)
class FeedComparison:
    """What was found.

    counts           entries that are right or litter, posts that are owed, follows that are not
                     backfilled yet, cached feeds that were compared, and that were not; by name
    different        differences in all
    differences      the first 50
    users_different  users with one, or with litter
    """

    users: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    different: int = 0
    differences: list[FeedDifference] = field(default_factory=list)
    users_different: set[str] = field(default_factory=set)

    def add(self, differences: Iterable[FeedDifference]) -> None:
        """Differences of one user or several."""
        for each in differences:
            self.different += 1
            self.users_different.add(each.user_id)
            if len(self.differences) < DIFFERENCES_SHOWN:
                self.differences.append(each)


def _sql() -> str:
    at_most = int(settings.FEED_WINDOW) * 2
    return f"""
    WITH asked AS MATERIALIZED (
        SELECT asked.user_id, coalesce(feed_windows.floor, 0) AS floor
        FROM unnest(%s::text[]) AS asked (user_id)
        LEFT JOIN feed_windows USING (user_id)
    ), entry AS MATERIALIZED (
        SELECT asked.user_id, entry.post_id, entry.author_id,
               CASE WHEN entry.post_id < asked.floor THEN 'litter'
                    WHEN follows.number IS NULL OR posts.id IS NULL THEN 'litter'
                    WHEN posts.author_id <> entry.author_id THEN 'wrong'
                    ELSE 'right' END AS state
        FROM asked
        JOIN feed_entries entry ON entry.user_id = asked.user_id
        LEFT JOIN follows ON follows.follower_id = entry.user_id
                         AND follows.followee_id = entry.author_id
                         AND follows.number = entry.follow_number AND follows.active
        LEFT JOIN posts ON posts.id = entry.post_id AND posts.deleted_at IS NULL
    ), missing AS MATERIALIZED (
        SELECT asked.user_id, post.id AS post_id, follows.followee_id AS author_id, follows.bucket
        FROM asked
        JOIN follows ON follows.follower_id = asked.user_id AND follows.active
                    AND follows.backfilled
        LEFT JOIN feed_authors ON feed_authors.author_id = follows.followee_id
        CROSS JOIN LATERAL (
            SELECT posts.id FROM posts
            WHERE posts.author_id = follows.followee_id AND posts.deleted_at IS NULL
              AND posts.id >= asked.floor
            ORDER BY posts.id DESC LIMIT {at_most}
        ) AS post
        WHERE coalesce(feed_authors.mode, 'stored') = 'stored'
          AND NOT EXISTS (
            SELECT FROM feed_entries entry
            WHERE entry.user_id = asked.user_id AND entry.post_id = post.id
              AND entry.follow_number = follows.number)
    ), judged AS (
        SELECT missing.user_id, missing.post_id, missing.author_id,
               CASE WHEN {OWED} THEN 'owed' ELSE 'missing' END AS state
        FROM missing
    )
    SELECT state, count(*), user_id, NULL, NULL FROM (
        SELECT state, user_id FROM entry UNION ALL SELECT state, user_id FROM judged UNION ALL
        SELECT 'not backfilled', user_id FROM asked
        JOIN follows ON follows.follower_id = asked.user_id AND active AND NOT backfilled
    ) AS each WHERE state NOT IN ('wrong', 'missing') GROUP BY state, user_id
    UNION ALL
    SELECT state, NULL, user_id, post_id, author_id FROM entry WHERE state = 'wrong'
    UNION ALL
    SELECT state, NULL, user_id, post_id, author_id FROM judged WHERE state = 'missing'
    ORDER BY 3, 4 DESC
    """


def compare_entries(users: Sequence[str], found: FeedComparison) -> None:
    """Compare the entries of these users with the truth, and add the outcome. All calls that share a
    snapshot run in one REPEATABLE READ transaction."""
    rows = rows_of(_sql(), (text_array_literal(users),))
    found.users += len(users)
    for state, count, user, post, author in rows:
        if count is None:
            found.add([FeedDifference(user, post, author, state)])
        else:
            found.counts[state] += count
            if state == "litter":
                found.users_different.add(user)
