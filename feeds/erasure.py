"""Removing a user: posts, follows both ways, entries, the cached feed, kept answers, in small pieces,
each with its events and final, so it can be run again (docs/feeds.md#for-operators)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from django.db import connection

from feeds import cache, services
from feeds.fanout.gate import ALONE
from feeds.services import Pair
from outbox.database.ask import rows_of
from outbox.database.round_trips import RoundTrip, send
from outbox.database.unit_of_work import joined_unit_of_work
from restapi.json import to_json
from restapi.retention import erase_answers

__all__ = ["ErasedUser", "erase_user"]

PIECE = 500  # posts or follows of a transaction
ENTRIES = 5_000
FEEDS = 100  # of followers, in which entries are looked for at a time


class ErasedUser(msgspec.Struct, kw_only=True):
    """How many rows went; `waiting` are follows that have ended and are kept until their clean-up is
    done, which is soon: run it again then."""

    posts: int = 0
    follows: int = 0
    entries: int = 0
    answers: int = 0
    waiting: int = 0


def erase_user(
    user_id: str,
    *,
    piece: int = PIECE,
    on_piece: Callable[[ErasedUser], None] = lambda _: None,
) -> ErasedUser:
    """Erase what there is of this user; not in a transaction.

    Raises NotStored, OutcomeUnknown and CacheUnavailable; what was done until then stays done.
    """
    erased = ErasedUser()
    for _ in _steps(user_id, erased, piece):
        on_piece(erased)
    return erased


def _steps(user_id: str, erased: ErasedUser, piece: int) -> Iterator[None]:
    """One transaction each. Follows first: nothing more is written into the feed, or from it."""
    for sql in (_FOLLOWS, _FOLLOWED_BY):
        while pairs := [Pair(*row) for row in _rows(sql, (user_id, piece))]:
            erased.follows += sum(services.unfollow(pairs))
            yield
    while posts := [row[0] for row in _rows(_POSTS, (user_id, piece))]:
        erased.posts += len(services.delete_posts(posts))
        yield
    for feeds in _pieces(_followers(user_id), FEEDS):
        erased.entries += _execute(_ENTRIES_BY_HIM, (feeds, user_id))
        yield
    while count := _execute(_HIS_ENTRIES, {"user": user_id, "most": ENTRIES}):
        erased.entries += count
        yield
    _forget_window(user_id)
    cache.touch_users([user_id])
    while posts := [row[0] for row in _rows(_DELETED_POSTS, (user_id, piece))]:
        erased.answers += erase_answers(to_json(services.created_words(id_)) for id_ in posts)
        _execute("UPDATE posts SET author_id = '' WHERE id = ANY(%s::bigint[])", (posts,))
        yield
    _execute(_COUNT, {"user": user_id})
    [[erased.waiting]] = _rows(_ENDED, (user_id, user_id))


_FOLLOWS = "SELECT follower_id, followee_id FROM follows WHERE follower_id = %s AND active LIMIT %s"
_FOLLOWED_BY = (
    "SELECT follower_id, followee_id FROM follows WHERE followee_id = %s AND active LIMIT %s"
)
_FOLLOWED_ONCE = "SELECT follower_id FROM follows WHERE followee_id = %s AND NOT active"
_POSTS = "SELECT id FROM posts WHERE author_id = %s AND deleted_at IS NULL LIMIT %s"
_DELETED_POSTS = (
    "SELECT id FROM posts WHERE author_id = %s AND deleted_at IS NOT NULL ORDER BY id LIMIT %s"
)
_ENDED = """
    SELECT (SELECT count(*) FROM follows WHERE follower_id = %s AND NOT active)
         + (SELECT count(*) FROM follows WHERE followee_id = %s AND NOT active)
"""
# His posts are deleted, which is for ever; an entry of somebody else's is left.
_ENTRIES_BY_HIM = """
    DELETE FROM feed_entries WHERE user_id = ANY(%s) AND author_id = %s
    AND EXISTS (SELECT FROM posts WHERE id = post_id AND deleted_at IS NOT NULL)
"""
# By the numbers of follows that have ended, which never begin again: an entry that a new follow has
# taken over meanwhile names another number, and stays.
_HIS_ENTRIES = """
    WITH ended AS MATERIALIZED (
        SELECT DISTINCT follow_number FROM feed_entries AS entry
        WHERE user_id = %(user)s AND NOT EXISTS (
            SELECT FROM follows
            WHERE follower_id = %(user)s AND followee_id = entry.author_id AND active
              AND number = entry.follow_number)
    ), found AS MATERIALIZED (
        SELECT post_id, follow_number FROM feed_entries JOIN ended USING (follow_number)
        WHERE user_id = %(user)s ORDER BY post_id LIMIT %(most)s
    )
    DELETE FROM feed_entries AS gone USING found
    WHERE user_id = %(user)s AND gone.post_id = found.post_id
      AND gone.follow_number = found.follow_number
"""
_WINDOW = """
    DELETE FROM feed_windows WHERE user_id = %s
    AND NOT EXISTS (SELECT FROM follows WHERE follower_id = %s AND active)
    AND NOT EXISTS (SELECT FROM feed_entries WHERE user_id = %s)
"""
# The events of the follows that have ended are counted a moment later; the row goes in a later run.
_COUNT = """
    DELETE FROM feed_authors WHERE author_id = %(user)s AND followers = 0
    AND mode = 'stored' AND NOT EXISTS (SELECT FROM follows WHERE followee_id = %(user)s)
"""


def _forget_window(user_id: str) -> None:
    """Without his row his entries count as complete, which they are while there are no posts to be
    among them. Alone, so that no backfill has left out what lies below the floor that goes."""
    with joined_unit_of_work():
        send(RoundTrip([ALONE, (_WINDOW, (user_id,) * 3)]))


def _followers(user_id: str) -> Iterator[str]:
    """Those who followed him, as far as their rows are kept; read before the first is given."""
    for [follower_id] in _rows(_FOLLOWED_ONCE, (user_id,)):
        yield follower_id


def _pieces(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    piece: list[str] = []
    for text in texts:
        piece.append(text)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


def _rows(sql: str, parameters: Any) -> list[tuple[Any, ...]]:
    return list(rows_of(sql, parameters))


def _execute(sql: str, parameters: Any) -> int:
    with joined_unit_of_work(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
