"""Slices of follows: the backfill of one, the clean-up behind one, and the backfill of all followers of
an author whose posts are stored again."""

from __future__ import annotations

from django.conf import settings

from feeds.fanout.gate import together
from feeds.fanout.slices import SliceBatch, WrittenSlices

__all__ = ["backfill", "clean_up", "fill_range", "filling"]


def filling(*, only: str = "", taken_over: str = "<") -> str:
    """CTEs that store the posts of authors in the feeds of followers, and a SELECT of the followers
    and of how many entries were written. A CTE `followed` (follower_id, author_id, number) is before.

    Of each author the newest posts that a window holds, from the follower's floor on; `only` is one more
    condition on them. If there were more, the window of the follower ends with the oldest of these. A
    conflict is a post that came through an earlier follow, or by its slice; `taken_over` compares its
    number with ours.
    """
    window = int(settings.FEED_WINDOW)
    return f"""
    post AS (
        SELECT followed.follower_id, followed.author_id, followed.number, newest.id,
               row_number() OVER newer AS place, lead(newest.id) OVER newer AS older
        FROM followed
        LEFT JOIN feed_windows ON feed_windows.user_id = followed.follower_id
        CROSS JOIN LATERAL (
            SELECT posts.id FROM posts
            WHERE posts.author_id = followed.author_id AND posts.deleted_at IS NULL
              AND posts.id >= coalesce(feed_windows.floor, 0) {only}
            ORDER BY posts.id DESC LIMIT {window + 1}
        ) AS newest
        WINDOW newer AS (
            PARTITION BY followed.follower_id, followed.author_id ORDER BY newest.id DESC)
    ), raised AS (
        INSERT INTO feed_windows (user_id, floor)
        SELECT follower_id, max(id) FROM post
        WHERE place = {window} AND older IS NOT NULL
        GROUP BY follower_id ORDER BY follower_id
        ON CONFLICT (user_id) DO UPDATE SET floor = excluded.floor
        WHERE feed_windows.floor < excluded.floor
    ), written AS (
        INSERT INTO feed_entries (user_id, post_id, author_id, follow_number)
        SELECT follower_id, id, author_id, number FROM post WHERE place <= {window}
        ORDER BY id, follower_id
        ON CONFLICT (user_id, post_id) DO UPDATE SET follow_number = excluded.follow_number
        WHERE feed_entries.follow_number {taken_over} excluded.follow_number
        RETURNING user_id
    )
    SELECT follower_id, (SELECT count(*) FROM written) FROM followed
    """


# `backfilled` is set first, which locks the row: a follow that ends meanwhile ends behind this, and so
# does its clean-up; and ours is the number that counts, whatever an entry says. For an author who is
# merged nothing is written: if he is stored again later, all his followers are filled then.
_BACKFILL = """
    WITH slice AS MATERIALIZED (
        SELECT follower_id, author_id, follow_number FROM feed_slices
        WHERE id = ANY(%s::bigint[])
    ), begun AS MATERIALIZED (
        UPDATE follows SET backfilled = true FROM slice
        WHERE follows.follower_id = slice.follower_id AND follows.followee_id = slice.author_id
          AND follows.number = slice.follow_number AND follows.active
        RETURNING follows.follower_id, follows.followee_id AS author_id, follows.number
    ), followed AS MATERIALIZED (
        SELECT begun.* FROM begun LEFT JOIN feed_authors USING (author_id)
        WHERE feed_authors.mode IS DISTINCT FROM 'merged'
    ), """

_RANGE = """
    WITH followed AS MATERIALIZED (
        SELECT follows.follower_id, slice.author_id, follows.number
        FROM feed_slices slice
        JOIN feed_authors ON feed_authors.author_id = slice.author_id
                         AND feed_authors.mode = 'storing'
        JOIN follows ON follows.followee_id = slice.author_id AND follows.active
                    AND follows.bucket >= slice.bucket_from AND follows.bucket < slice.bucket_to
        WHERE slice.id = ANY(%s::bigint[])
    ), """

# Numbers of a pair rise, so what an earlier follow has left goes too, and what a later one has taken
# over stays. So does what came through the follow that is active now, whatever number the slice names:
# another producer may have written its event, or a database that was set back has forgotten what it says.
# The rows of the pairs are locked first, which reads them as they are then and not as they were when the
# statement began. The row of the pair goes as well, unless it is followed again.
_CLEAN_UP = """
    WITH slice AS MATERIALIZED (
        SELECT follower_id, author_id, follow_number FROM feed_slices
        WHERE id = ANY(%s::bigint[])
    ), held AS MATERIALIZED (
        SELECT follows.follower_id, follows.followee_id, follows.number, follows.active
        FROM follows
        WHERE (follower_id, followee_id) IN (SELECT follower_id, author_id FROM slice)
        ORDER BY follower_id, followee_id FOR UPDATE
    ), ended AS MATERIALIZED (
        SELECT slice.*, held.number AS active_number FROM slice
        LEFT JOIN held ON held.follower_id = slice.follower_id
                      AND held.followee_id = slice.author_id AND held.active
    ), gone AS (
        DELETE FROM feed_entries USING ended
        WHERE feed_entries.user_id = ended.follower_id
          AND feed_entries.author_id = ended.author_id
          AND feed_entries.follow_number <= ended.follow_number
          AND feed_entries.follow_number IS DISTINCT FROM ended.active_number
        RETURNING feed_entries.user_id
    ), pruned AS (
        DELETE FROM follows USING ended
        WHERE follows.follower_id = ended.follower_id AND follows.followee_id = ended.author_id
          AND follows.number <= ended.follow_number AND NOT follows.active
    )
    SELECT DISTINCT follower_id, (SELECT count(*) FROM gone) FROM slice
"""


def backfill(batch: SliceBatch) -> WrittenSlices:
    """Store what the authors have posted before they were followed, in a transaction. Until it
    commits these follows are merged at read."""
    sql = _BACKFILL + filling(taken_over="<>")
    [rows] = together((sql, (batch.ids,)))
    users = sorted({user for user, _ in rows})
    return WrittenSlices(users=users, grown=users, count=rows[0][1] if rows else 0)


def fill_range(batch: SliceBatch) -> WrittenSlices:
    """Store the posts of an author who is merged at read in the feeds of a range of his followers, in
    a transaction."""
    [rows] = together((_RANGE + filling(), (batch.ids,)))
    return WrittenSlices(grown=sorted({user for user, _ in rows}), count=rows[0][1] if rows else 0)


def clean_up(batch: SliceBatch) -> WrittenSlices:
    """Delete the entries of follows that have ended, in a transaction. They are hidden already."""
    [rows] = together((_CLEAN_UP, (batch.ids,)))
    return WrittenSlices(users=sorted(user for user, _ in rows), count=rows[0][1] if rows else 0)
