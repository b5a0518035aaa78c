"""Removing a user: posts, follows both ways, entries, the cached feed, kept answers, in small pieces,
each with its events and final, so it can be run again (docs/feeds.md#for-operators)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from feeds import cache, services
from feeds.fanout.gate import ALONE
from feeds.models import Follow, Post
from feeds.services import Pair
from outbox.database.ask import changed_by, row_of
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
    for side in ("follower_id", "followee_id"):
        follows = Follow.objects.filter(active=True, **{side: user_id})
        pairs = follows.values_list("follower_id", "followee_id")
        while some := [Pair(*row) for row in pairs.all()[:piece]]:
            erased.follows += sum(services.unfollow(some))
            yield
    ids = Post.objects.filter(author_id=user_id).values_list("id", flat=True)
    while posts := list(ids.filter(deleted_at=None)[:piece]):
        erased.posts += len(services.delete_posts(posts))
        yield
    ended = Follow.objects.filter(followee_id=user_id, active=False)
    followers = list(ended.values_list("follower_id", flat=True))
    for at in range(0, len(followers), FEEDS):
        erased.entries += _execute(_ENTRIES_BY_HIM, (followers[at : at + FEEDS], user_id))
        yield
    while count := _execute(_HIS_ENTRIES, {"user": user_id, "most": ENTRIES}):
        erased.entries += count
        yield
    _forget_window(user_id)
    cache.touch_users([user_id])
    while posts := list(ids.filter(deleted_at__isnull=False).order_by("id")[:piece]):
        erased.answers += erase_answers(to_json(services.created_words(id_)) for id_ in posts)
        _execute("UPDATE posts SET author_id = '' WHERE id = ANY(%s::bigint[])", (posts,))
        yield
    _execute(_COUNT, {"user": user_id})
    [erased.waiting] = row_of(_ENDED, (user_id, user_id))


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


def _execute(sql: str, parameters: Any) -> int:
    with joined_unit_of_work():
        return changed_by(sql, parameters)
