"""Writing posts and follows: each change with its event and its row of feed_changes or feed_log, in one
transaction (docs/feeds.md#writing)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from feeds.events import LIVE_FEEDS, Followed, PostCreated, PostDeleted, Unfollowed
from feeds.ids import moment_in_sql, seconds_of
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import Change, RoundTrip, Row, Statement, Steps, run, send
from outbox.database.unit_of_work import joined_unit_of_work
from outbox.envelope import NO_TRACE, TraceContext
from outbox.publish.events import publishing
from restapi.status_nudge import nudging

__all__ = [
    "NewPost",
    "Pair",
    "begin_follows_of",
    "created_words",
    "creating_posts",
    "delete_posts",
    "deleting_posts",
    "following",
    "unfollow",
    "unfollowing",
]


class NewPost(msgspec.Struct, frozen=True, kw_only=True):
    """A post to store. Its id is drawn before: whoever draws may have to wait for a node."""

    post_id: int
    author_id: str
    content: str
    trace: TraceContext = NO_TRACE


class Pair(NamedTuple):
    """Who follows whom."""

    follower_id: str
    followee_id: str


# -- posts

INSERT_POSTS = f"""
    WITH fresh AS (
        SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[])
            AS fresh (id, author_id, content)
    ), stored AS (
        INSERT INTO posts (id, author_id, content, created_at)
        SELECT id, author_id, content, {moment_in_sql("id")} FROM fresh
    )
    INSERT INTO feed_log (kind, post_id, author_id) SELECT 'post', id, author_id FROM fresh
"""


def creating_posts(posts: Sequence[NewPost]) -> Change[int]:
    """The ids of new posts, and what stores them: two statements, however many they are."""
    if not posts:
        return Change(())
    events = publishing(
        [
            PostCreated.of(post.post_id, post.author_id, post.content, seconds_of(post.post_id))
            for post in posts
        ],
        traces=[post.trace for post in posts],
    )
    insertion: Statement = (
        INSERT_POSTS,
        (
            array_literal([post.post_id for post in posts]),
            text_array_literal([post.author_id for post in posts]),
            text_array_literal([post.content for post in posts]),
        ),
    )
    on_commit = nudging(LIVE_FEEDS, events.on_commit)
    trip = RoundTrip([insertion, *events.statements], on_commit)
    return Change([post.post_id for post in posts], trip)


def created_words(post_id: int) -> dict[str, Any]:
    """The answer to a new post, which is kept under the author's idempotency key."""
    return {
        "post_id": post_id,
        "post_id_str": str(post_id),
        "message": "Post created successfully",
    }


# Rows are locked in the order of their ids, so that two of these never wait for each other.
DELETE_POSTS = """
    WITH there AS MATERIALIZED (
        SELECT id, deleted_at IS NOT NULL AS again
        FROM posts WHERE id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE
    ), gone AS (
        UPDATE posts SET content = '', deleted_at = clock_timestamp()
        FROM there WHERE posts.id = there.id AND NOT again
        RETURNING posts.id, author_id
    ), noted AS (
        INSERT INTO feed_changes (kind, author_id, post_id)
        SELECT 'delete', author_id, id FROM gone
    ), logged AS (
        INSERT INTO feed_log (kind, post_id, author_id) SELECT 'delete', id, author_id FROM gone
    )
    SELECT id, again, author_id FROM there LEFT JOIN gone USING (id) ORDER BY id
"""


def delete_posts(post_ids: Sequence[int], *, trace: TraceContext = NO_TRACE) -> list[bool]:
    """Delete those of these posts that there are; whether each was still there. In the open
    transaction, else in one of its own."""
    with joined_unit_of_work():
        return [new for new in run(deleting_posts(post_ids, trace=trace)) if new is not None]


def deleting_posts(
    post_ids: Sequence[int], *, trace: TraceContext = NO_TRACE
) -> Steps[bool | None]:
    """Whether each of these posts was still there, and what deletes them; None: there never was such a
    one."""
    asked: Statement = (DELETE_POSTS, (array_literal(set(post_ids)),))
    [rows] = yield RoundTrip([asked])
    now = int(time.time())
    gone = [PostDeleted.of(id_, author_id, now) for id_, again, author_id in rows if not again]
    events = publishing(gone, traces=[trace] * len(gone))
    was_there = {id_: not again for id_, again, _ in rows}
    results = [was_there.get(id_) for id_ in post_ids]
    on_commit = nudging(LIVE_FEEDS, events.on_commit)
    return Change(results, RoundTrip(events.statements, on_commit))


# -- follows

# A pair that is followed already is locked and left as it is. A number is drawn behind the lock, so
# those of one pair follow its changes.
_BEGIN_FOLLOWS = """
    WITH begun AS (
        INSERT INTO follows AS held (follower_id, followee_id)
        SELECT follower_id, followee_id FROM {pairs} AS asked (follower_id, followee_id)
        ORDER BY follower_id COLLATE "C", followee_id COLLATE "C"
        ON CONFLICT (follower_id, followee_id) DO UPDATE
        SET active = true, backfilled = false, at = clock_timestamp(),
            number = nextval('feeds_follow_numbers')
        WHERE NOT held.active
        RETURNING follower_id, followee_id, number
    ), noted AS (
        INSERT INTO feed_changes (kind, follower_id, author_id)
        SELECT 'follow', follower_id, followee_id FROM begun
    )
    SELECT follower_id, followee_id, number FROM begun
"""
BEGIN_FOLLOWS = _BEGIN_FOLLOWS.format(pairs="unnest(%s::text[], %s::text[])")
END_FOLLOWS = """
    WITH mine AS MATERIALIZED (
        SELECT follower_id, followee_id FROM follows
        JOIN unnest(%s::text[], %s::text[]) AS asked (follower_id, followee_id)
            USING (follower_id, followee_id)
        WHERE active ORDER BY follower_id, followee_id FOR UPDATE OF follows
    ), ended AS (
        UPDATE follows AS held SET active = false, at = clock_timestamp()
        FROM mine
        WHERE held.follower_id = mine.follower_id AND held.followee_id = mine.followee_id
        RETURNING held.follower_id, held.followee_id, number
    ), noted AS (
        INSERT INTO feed_changes (kind, follower_id, author_id)
        SELECT 'unfollow', follower_id, followee_id FROM ended
    )
    SELECT follower_id, followee_id, number FROM ended
"""


def following(pairs: Sequence[Pair], *, trace: TraceContext = NO_TRACE) -> Steps[bool | None]:
    """Whether each of these follows is new, and what begins them with their events."""
    return (yield from _changing(BEGIN_FOLLOWS, Followed, pairs, trace))


def unfollow(pairs: Sequence[Pair], *, trace: TraceContext = NO_TRACE) -> list[bool]:
    """End these follows; whether there was one. In the open transaction, else in one of its own."""
    with joined_unit_of_work():
        return [bool(ended) for ended in run(unfollowing(pairs, trace=trace))]


def unfollowing(pairs: Sequence[Pair], *, trace: TraceContext = NO_TRACE) -> Steps[bool | None]:
    """Whether each of these pairs followed, and what ends that with its events."""
    return (yield from _changing(END_FOLLOWS, Unfollowed, pairs, trace))


def _changing(
    sql: str,
    event: type[Followed | Unfollowed],
    pairs: Sequence[Pair],
    trace: TraceContext,
) -> Steps[bool | None]:
    """A pair that is given twice is changed once, for the first of the two."""
    each = list(dict.fromkeys(pairs))
    asked: Statement = (
        sql,
        (
            text_array_literal([pair.follower_id for pair in each]),
            text_array_literal([pair.followee_id for pair in each]),
        ),
    )
    [rows] = yield RoundTrip([asked])
    events = publishing(_events_of(event, rows), traces=[trace] * len(rows))
    is_new = {Pair(follower_id, followee_id) for follower_id, followee_id, _ in rows}
    results: list[bool | None] = []
    for pair in pairs:
        results.append(pair in is_new)
        is_new.discard(pair)
    return Change(results, events)


def _events_of(
    event: type[Followed | Unfollowed], rows: Sequence[Row]
) -> list[Followed | Unfollowed]:
    """The events of what these rows say: pairs, and the numbers of their follows."""
    now = int(time.time())
    return [
        event.of(follower_id, followee_id, number, now) for follower_id, followee_id, number in rows
    ]


def begin_follows_of(table: str) -> int:
    """Let the pairs of a table (follower_id, followee_id; each once) follow, in the open transaction;
    returns how many are new. `table` is a name of the code."""
    [rows] = send(RoundTrip([(_BEGIN_FOLLOWS.format(pairs=table), ())]))
    send(publishing(_events_of(Followed, rows)))
    return len(rows)
