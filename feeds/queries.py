"""Reading posts and follows. PostgreSQL puts posts into the contract's words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from django.db.models import QuerySet

from feeds.models import BUCKETS, FeedEntry, FeedSlice, Follow, Post
from outbox.database.arrays import array_literal
from outbox.database.ask import row_of, rows_of
from outbox.database.round_trips import Statement
from outbox.envelope import rfc3339_of
from restapi.cursors import from_base64url, to_base64url

__all__ = [
    "HIGHEST_ID",
    "POST_IN_WORDS",
    "PostsPage",
    "UsersPage",
    "follower_of",
    "followers_page",
    "following_page",
    "is_deleted",
    "is_known",
    "newest_posts_of",
    "parse_post_id",
    "posts_in_words",
    "posts_of",
    "posts_of_author",
    "slices_of",
    "some_followers_of",
    "state_of_slice",
    "user_of",
]

HIGHEST_ID = (1 << 63) - 1
_POST_ID = re.compile(r"[1-9][0-9]{0,18}")


def parse_post_id(text: str) -> int | None:
    """The id that a text is, as we write it; None for anything else."""
    if not _POST_ID.fullmatch(text):
        return None
    number = int(text)
    return number if number <= HIGHEST_ID else None


# A row of posts as the JSON object that the contract shows.
POST_IN_WORDS = f"""
    SELECT row_to_json(shown) FROM (
        SELECT posts.id AS post_id, posts.id::text AS post_id_str, posts.author_id, posts.content,
               {rfc3339_of("posts.created_at")} AS created_at
    ) AS shown
"""


def posts_in_words(post_ids: Collection[int]) -> Statement:
    """What reads those of these posts that are there, as (id, JSON object of the contract)."""
    sql = (
        f"SELECT id, ({POST_IN_WORDS})::text FROM posts"
        " WHERE id = ANY(%s::bigint[]) AND deleted_at IS NULL"
    )
    return sql, (array_literal(post_ids),)


def posts_of(post_ids: Collection[int]) -> dict[int, str]:
    """Those of these posts that are there: id -> JSON object of the contract."""
    return dict(rows_of(*posts_in_words(post_ids)))


class PostsPage(NamedTuple):
    """Posts in the contract's words, newest first; `next_before` is None on the last page."""

    posts: Sequence[str]
    next_before: int | None


def posts_of_author(author_id: str, *, limit: int, before: int = HIGHEST_ID) -> PostsPage:
    """The newest posts of an author that are older than `before`, along index posts_of_author.

    Both columns are compared and ordered by: of an author who is thought to have written much,
    PostgreSQL would otherwise look among the newest posts of all.
    """
    rows = rows_of(
        f"SELECT id, ({POST_IN_WORDS})::text FROM posts"
        " WHERE (author_id, id) < (%s, %s) AND author_id >= %s AND deleted_at IS NULL"
        " ORDER BY author_id DESC, id DESC LIMIT %s",
        (author_id, before, author_id, limit + 1),
    )
    words = [text for _, text in rows[:limit]]
    return PostsPage(words, rows[limit - 1][0] if len(rows) > limit else None)


def user_of(cursor: str) -> str:
    """The last user of the page that has named this cursor. Raises ValueError for anything else."""
    found = from_base64url(cursor).decode()
    if "\0" in found:
        raise ValueError("no id has a NUL")
    return found


def follower_of(cursor: str) -> tuple[int, str]:
    """Bucket and id of the last follower of a page: they are listed by bucket, along the index that
    fan-out reads. Raises ValueError for anything else."""
    bucket, slash, user_id = user_of(cursor).partition("/")
    if not slash or not bucket.isascii() or not bucket.isdigit() or int(bucket) >= BUCKETS:
        raise ValueError("no bucket")
    return int(bucket), user_id


class UsersPage(NamedTuple):
    """User ids, how many there are in all, and the cursor of the next page (None: this is the last)."""

    users: Sequence[str]
    in_all: int
    next: str | None


# Each is one statement, so that the page and the number are of one snapshot.
_FOLLOWING = """
    SELECT (SELECT count(*) FROM follows WHERE follower_id = %(user)s AND active),
           ARRAY(SELECT followee_id FROM follows
                 WHERE follower_id = %(user)s AND active AND followee_id > %(after)s
                 ORDER BY followee_id LIMIT %(most)s)
"""
_FOLLOWERS = """
    SELECT coalesce((SELECT followers FROM feed_authors WHERE author_id = %(user)s), 0),
           array_agg(bucket ORDER BY bucket, follower_id),
           array_agg(follower_id ORDER BY bucket, follower_id)
    FROM (SELECT bucket, follower_id FROM follows
          WHERE followee_id = %(user)s AND active AND (bucket, follower_id) > (%(bucket)s, %(after)s)
          ORDER BY bucket, follower_id LIMIT %(most)s) AS page
"""


def following_page(user_id: str, *, limit: int, after: str = "") -> UsersPage:
    """Whom a user follows, along index follows_of_follower. `in_all` is exact."""
    count, users = row_of(_FOLLOWING, {"user": user_id, "after": after, "most": limit + 1})
    more = len(users) > limit
    return UsersPage(
        users[:limit], count, to_base64url(users[limit - 1].encode()) if more else None
    )


def followers_page(user_id: str, *, limit: int, after: tuple[int, str] = (0, "")) -> UsersPage:
    """Who follows a user, along index follows_of_followee. `in_all` is of the events applied so far."""
    bucket, last = after
    counted, buckets, users = row_of(
        _FOLLOWERS, {"user": user_id, "bucket": bucket, "after": last, "most": limit + 1}
    )
    more = users is not None and len(users) > limit
    return UsersPage(
        (users or [])[:limit],
        max(0, counted),  # an unfollow may be counted before its follow
        to_base64url(f"{buckets[limit - 1]}/{users[limit - 1]}".encode()) if more else None,
    )


# -- for people


def newest_posts_of(author_id: str, number: int) -> list[int]:
    """Ids of an author's newest posts that are not deleted, along index posts_of_author."""
    of_author = Post.objects.filter(author_id__range=(author_id, author_id), deleted_at=None)
    ordered = of_author.order_by("-author_id", "-id")  # as in posts_of_author
    return list(ordered.values_list("id", flat=True)[:number])


def some_followers_of(followee_id: str, number: int) -> list[str]:
    """The first of them along index follows_of_followee."""
    follows = Follow.objects.filter(followee_id=followee_id, active=True)
    ordered = follows.order_by("bucket", "follower_id")
    return list(ordered.values_list("follower_id", flat=True)[:number])


def is_deleted(post_id: int) -> bool | None:
    """Whether this post is deleted; None: there never was such a one."""
    found = Post.objects.filter(pk=post_id).values_list("deleted_at").first()
    return None if found is None else found[0] is not None


def is_known(user_id: str) -> bool:
    """Whether anybody of this id has posted, follows, is followed, or has entries."""
    whose: list[QuerySet[Any]] = [
        Post.objects.filter(author_id=user_id, deleted_at=None),
        Follow.objects.filter(follower_id=user_id, active=True),
        Follow.objects.filter(followee_id=user_id, active=True),
        FeedEntry.objects.filter(user_id=user_id),
    ]
    return any(rows.exists() for rows in whose)


def slices_of(post_id: int) -> list[FeedSlice]:
    """What is still to be done of a post's fan-out, along index feed_slices_of_post."""
    return list(FeedSlice.objects.filter(post_id=post_id).order_by("id"))


def state_of_slice(piece: FeedSlice) -> str:
    """One word, or a few."""
    if piece.failed_at:
        return "failed"
    return "written, caches to confirm" if piece.written_at else "waiting"
