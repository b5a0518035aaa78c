"""The live feed: posts and deletions as they are committed, for those who follow their author."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feeds.events import LIVE_FEEDS
from feeds.models import ChangeKind, LogKind
from outbox.database.arrays import text_array_literal
from outbox.database.round_trips import Row, Statement
from restapi.status_log import Following, StatusLog

__all__ = ["FEED_LOG"]


def _authors_of(users: Sequence[str]) -> Statement:
    """Rows (user, author whose posts are in the user's feed): the followed users and the user."""
    given = text_array_literal(users)
    sql = """
        SELECT follower_id, followee_id FROM follows
        WHERE follower_id = ANY(%s::text[]) AND active
        UNION ALL SELECT user_id, user_id FROM unnest(%s::text[]) AS users (user_id)
    """
    return sql, (given, given)


def _message(seq: int, row: Row) -> dict[str, Any]:
    kind, post_id, author_id = row
    if kind == LogKind.DELETE:
        return {"seq": seq, "deleted": post_id, "post_id_str": str(post_id)}
    return {
        "seq": seq,
        "post_id": post_id,
        "post_id_str": str(post_id),
        "author_id": author_id,
    }


FEED_LOG = StatusLog(
    name=LIVE_FEEDS,
    table="feed_log",
    columns=("kind", "post_id", "author_id"),
    keys=lambda row: (row[2],),  # the author
    message=_message,
    following=Following(
        keys_of=_authors_of,
        changes="feed_changes",
        subject="follower_id",
        where=f"kind IN ('{ChangeKind.FOLLOW.value}', '{ChangeKind.UNFOLLOW.value}')",
    ),
)
