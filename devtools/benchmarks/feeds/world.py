"""Readers, authors, posts and entries as the pipeline would have stored them, made by SQL."""

from __future__ import annotations

from typing import LiteralString

import psycopg

__all__ = ["FeedReading", "fill", "settle"]

LARGE_EACH = 2  # of whom a reader follows, merged at read
LARGE = 20
# Ids of a second ago and before, a millisecond each; the newest first.
_ID = "(((extract(epoch FROM statement_timestamp()) * 1000)::bigint - 1767225600000 - 1000 - {}) << 22)"
_FOLLOWS: LiteralString = """
    INSERT INTO follows (follower_id, followee_id, backfilled)
    SELECT DISTINCT 'reader-' || reader, 'author-' || (reader * 37 + place * 7) %% %(authors)s, true
    FROM generate_series(0, %(readers)s - 1) AS reader,
         generate_series(0, %(small)s - 1) AS place
    UNION ALL
    SELECT 'reader-' || reader, 'large-' || (reader + place * 7) %% %(large)s, true
    FROM generate_series(0, %(readers)s - 1) AS reader,
         generate_series(0, %(large_each)s - 1) AS place
"""
_AUTHORS: LiteralString = """
    INSERT INTO feed_authors (author_id, followers, mode)
    SELECT followee_id, count(*), CASE WHEN followee_id LIKE 'large-%%' THEN 'merged' ELSE 'stored' END
    FROM follows GROUP BY 1
"""
_POSTS = f"""
    INSERT INTO posts (id, author_id, content, created_at)
    SELECT {_ID.format("place")},
        CASE WHEN place %% 50 = 0 THEN 'large-' || (place / 50) %% %(large)s
             ELSE 'author-' || place %% %(authors)s END,
        'Something that happened to me today.', clock_timestamp()
    FROM generate_series(1, %(posts)s) AS place
"""
# The newest of each reader, and below them what is merged from the posts. Post by post, as fan-out writes
# them, so that those of a reader lie apart; the index comes afterwards, in a tenth of the time.
_ENTRIES: tuple[LiteralString, ...] = (
    "ANALYZE follows, posts",
    "ALTER TABLE feed_entries DROP CONSTRAINT feed_entries_pkey",
    """
    INSERT INTO feed_entries (user_id, post_id, author_id, follow_number)
    SELECT follower_id, id, author_id, number
    FROM (SELECT id, author_id FROM posts WHERE author_id LIKE 'author-%%' ORDER BY id) AS post
    CROSS JOIN LATERAL (
        SELECT follower_id, number FROM follows
        WHERE followee_id = post.author_id AND active OFFSET 0
    ) AS follow
    """,
    "ALTER TABLE feed_entries ADD CONSTRAINT feed_entries_pkey PRIMARY KEY (user_id, post_id)",
)
_WINDOWS: LiteralString = """
    INSERT INTO feed_windows (user_id, floor)
    SELECT user_id, min(post_id) FROM feed_entries GROUP BY 1
"""


class FeedReading:
    """How much there is to read. `entries`: of each reader, about; `each`: authors that he follows."""

    def __init__(
        self,
        *,
        readers: int = 10_000,
        authors: int = 2_000,
        entries: int = 100,
        each: int = 200,
    ) -> None:
        self.readers, self.authors, self.entries, self.each = readers, authors, entries, each


def fill(database_url: str, world: FeedReading) -> str:
    """Store it, in place of what there is; in words how much it is."""
    small = world.each - LARGE_EACH
    posts = world.entries * world.authors // small * 50 // 49
    numbers = {
        "readers": world.readers,
        "authors": world.authors,
        "posts": posts,
        "small": small,
        "large": LARGE,
        "large_each": LARGE_EACH,
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE posts, follows, feed_entries, feed_windows, feed_authors, feed_slices, feed_log,"
            " feed_changes"
        )
        for statement in (_FOLLOWS, _AUTHORS, _POSTS, *_ENTRIES, _WINDOWS):
            connection.execute(statement, numbers)
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[index]
            for table in ("follows", "posts", "feed_entries")
        ]
    settle(database_url)
    follows, posts, entries = counts
    return f"{world.readers:,} readers, {follows:,} follows, {posts:,} posts, {entries:,} entries"


def settle(database_url: str) -> None:
    """PostgreSQL tidies up now, and not in the middle of the next load."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
