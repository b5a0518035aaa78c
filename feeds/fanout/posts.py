"""Slices of posts and of deletions: entries of many followers, and of many posts, in one statement that
reads the state at the time when it runs: a slice applied twice or late writes nothing wrong."""

from __future__ import annotations

import msgspec

from feeds.fanout.gate import together
from feeds.fanout.slices import SliceBatch, WrittenSlices

__all__ = ["LOOK_AT_EVERY", "delete_entries", "write_entries"]

# One in so many new entries of a user checks the size of the window. A power of two.
LOOK_AT_EVERY = 64

_AUTHORS = """
    SELECT DISTINCT author_id, pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    FROM feed_slices WHERE id = ANY(%s::bigint[])
"""

# A post above every floor needs no look at any. An entry with a lower number is of a follow that has ended: the later one takes it over. What lies
# below the floor is merged at read. The caches hear of all, whatever was stored before: the worker that
# stored it may have died before it could update them.
_WRITE = f"""
    WITH slice AS MATERIALIZED (
        SELECT slice.post_id, slice.author_id, slice.bucket_from, slice.bucket_to,
               slice.written_at IS NULL AS is_new,
               slice.post_id < (SELECT max(floor) FROM feed_windows) AS is_old
        FROM feed_slices slice
        JOIN posts ON posts.id = slice.post_id AND posts.deleted_at IS NULL
        WHERE slice.id = ANY(%s::bigint[])
        ORDER BY slice.post_id
    ), target AS MATERIALIZED (
        SELECT follow.follower_id, slice.post_id, slice.author_id, follow.number, follow.bucket,
               slice.is_new AND slice.post_id >= coalesce(feed_windows.floor, 0) AS is_stored
        FROM slice
        CROSS JOIN LATERAL (
            SELECT follower_id, number, bucket FROM follows
            WHERE followee_id = slice.author_id AND active
              AND bucket >= slice.bucket_from AND bucket < slice.bucket_to
            ORDER BY bucket, follower_id
        ) AS follow
        LEFT JOIN feed_windows
               ON slice.is_old AND feed_windows.user_id = follow.follower_id
    ), written AS (
        INSERT INTO feed_entries (user_id, post_id, author_id, follow_number)
        SELECT follower_id, post_id, author_id, number FROM target WHERE is_stored
        ON CONFLICT (user_id, post_id) DO UPDATE SET follow_number = excluded.follow_number
        WHERE feed_entries.follow_number < excluded.follow_number
    )
    SELECT post_id, json_agg(follower_id)::text, count(*) FILTER (WHERE is_stored),
           coalesce(json_agg(follower_id) FILTER (
               WHERE is_stored AND (hashint8(post_id) + bucket) & {LOOK_AT_EVERY - 1} = 0), '[]')::text
    FROM target GROUP BY post_id
"""

# Followers come as one text a post: thousands of rows would cost more than the rest of it.
_texts = msgspec.json.Decoder(list[str]).decode

# Former followers are not read either: their clean-up is a slice of its own.
_DELETE = """
    WITH slice AS MATERIALIZED (
        SELECT slice.post_id, slice.author_id, slice.bucket_from, slice.bucket_to
        FROM feed_slices slice
        JOIN posts ON posts.id = slice.post_id AND posts.deleted_at IS NOT NULL
        WHERE slice.id = ANY(%s::bigint[])
    ), gone AS (
        DELETE FROM feed_entries USING slice, follows
        WHERE follows.followee_id = slice.author_id AND follows.active
          AND follows.bucket >= slice.bucket_from AND follows.bucket < slice.bucket_to
          AND feed_entries.user_id = follows.follower_id
          AND feed_entries.post_id = slice.post_id
        RETURNING feed_entries.user_id
    )
    SELECT count(*) FROM gone
"""


def write_entries(batch: SliceBatch) -> WrittenSlices:
    """Store the posts of these slices in the feeds of their followers, in a transaction."""
    authors, rows = together((_AUTHORS, (batch.ids,)), (_WRITE, (batch.ids,)))
    return WrittenSlices(
        entries=[(user, post_id) for post_id, users, _, _ in rows for user in _texts(users)],
        as_of=authors[0][1] if authors else 0,
        users=[author for author, _ in authors],
        grown=sorted({user for row in rows for user in _texts(row[3])}),
        count=sum(row[2] for row in rows),
    )


def delete_entries(batch: SliceBatch) -> WrittenSlices:
    """Delete the entries of deleted posts, in a transaction. They are hidden already: every reader
    asks the post."""
    authors, [(count,)] = together((_AUTHORS, (batch.ids,)), (_DELETE, (batch.ids,)))
    return WrittenSlices(users=[author for author, _ in authors], count=count)
