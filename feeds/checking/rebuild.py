"""Entries are rebuilt from the posts, a few users at a time; a user's entries and his floor change in
one transaction. It alone lowers a floor, so it goes through the gate alone (feeds/fanout/gate.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.conf import settings
from django.db import transaction

from feeds import cache
from feeds.fanout.gate import ALONE
from outbox.database.arrays import text_array_literal
from outbox.database.ask import row_of, rows_of
from outbox.database.round_trips import RoundTrip, send

__all__ = ["USERS_AT_ONCE", "all_users", "rebuild", "sampled_users"]

USERS_AT_ONCE = 20


def _rebuilding() -> str:
    window = int(settings.FEED_WINDOW)
    # Authors who are merged have no entries, and their follows are left to their own backfill. A pair may
    # be unfollowed and followed again while the statement runs: it then says of the follow that it has
    # seen that it is backfilled, and not of the next one.
    return f"""
    WITH asked AS MATERIALIZED (
        SELECT user_id FROM unnest(%s::text[]) AS asked (user_id)
    ), seen AS MATERIALIZED (
        SELECT follows.follower_id AS user_id, follows.followee_id AS author_id, follows.number,
               follows.backfilled
        FROM asked
        JOIN follows ON follows.follower_id = asked.user_id AND follows.active
        LEFT JOIN feed_authors ON feed_authors.author_id = follows.followee_id
        WHERE feed_authors.mode IS DISTINCT FROM 'merged'
    ), post AS (
        SELECT seen.user_id, newest.id, seen.author_id, seen.number,
               row_number() OVER newer AS place, lead(newest.id) OVER newer AS older
        FROM seen
        CROSS JOIN LATERAL (
            SELECT posts.id FROM posts
            WHERE posts.author_id = seen.author_id AND posts.deleted_at IS NULL
            ORDER BY posts.id DESC LIMIT {window + 1}
        ) AS newest
        WINDOW newer AS (PARTITION BY seen.user_id ORDER BY newest.id DESC)
    ), kept AS MATERIALIZED (
        SELECT * FROM post WHERE place <= {window}
    ), bordered AS MATERIALIZED (
        SELECT user_id, id AS floor FROM kept WHERE place = {window} AND older IS NOT NULL
    ), gone AS (
        DELETE FROM feed_entries entry USING asked
        WHERE entry.user_id = asked.user_id AND NOT EXISTS (
            SELECT FROM kept WHERE kept.user_id = entry.user_id AND kept.id = entry.post_id)
    ), written AS (
        INSERT INTO feed_entries (user_id, post_id, author_id, follow_number)
        SELECT user_id, id, author_id, number FROM kept ORDER BY id, user_id
        ON CONFLICT (user_id, post_id) DO UPDATE
        SET follow_number = excluded.follow_number, author_id = excluded.author_id
        WHERE (feed_entries.follow_number, feed_entries.author_id)
              IS DISTINCT FROM (excluded.follow_number, excluded.author_id)
    ), unbordered AS (
        DELETE FROM feed_windows USING asked
        WHERE feed_windows.user_id = asked.user_id
          AND asked.user_id NOT IN (SELECT user_id FROM bordered)
    ), lowered AS (
        INSERT INTO feed_windows (user_id, floor) SELECT user_id, floor FROM bordered
        ON CONFLICT (user_id) DO UPDATE SET floor = excluded.floor
    ), backfilled AS (
        UPDATE follows SET backfilled = true
        FROM seen
        WHERE follows.follower_id = seen.user_id AND follows.followee_id = seen.author_id
          AND follows.number = seen.number AND NOT seen.backfilled
          AND follows.active AND NOT follows.backfilled
    )
    SELECT count(*) FROM kept
    """


def rebuild(users: Sequence[str]) -> int:
    """Build the entries of these users anew, in one transaction, and have their cached feeds filled
    again; returns how many entries they have now. Raises CacheUnavailable, after the commit."""
    with transaction.atomic():
        _, [(entries,)] = send(RoundTrip([ALONE, (_rebuilding(), (text_array_literal(users),))]))
    cache.touch_users(users)
    return int(entries)


_NEXT = """
    SELECT user_id FROM (
        (SELECT DISTINCT follower_id AS user_id FROM follows
         WHERE follower_id > %(last)s ORDER BY 1 LIMIT %(size)s)
        UNION
        (SELECT user_id FROM feed_windows WHERE user_id > %(last)s ORDER BY 1 LIMIT %(size)s)
        UNION
        (WITH RECURSIVE other AS (
            (SELECT user_id, 1 AS place FROM feed_entries WHERE user_id > %(last)s
             ORDER BY user_id LIMIT 1)
            UNION ALL
            SELECT (SELECT entry.user_id FROM feed_entries entry
                    WHERE entry.user_id > other.user_id ORDER BY entry.user_id LIMIT 1), place + 1
            FROM other WHERE other.user_id IS NOT NULL AND place < %(size)s)
         SELECT user_id FROM other WHERE user_id IS NOT NULL)
    ) AS next_users ORDER BY user_id LIMIT %(size)s
"""


def all_users(size: int = USERS_AT_ONCE) -> Iterator[list[str]]:
    """All users who follow or have entries, in order, `size` at a time."""
    last = ""
    while users := [row[0] for row in rows_of(_NEXT, {"last": last, "size": size})]:
        yield users
        last = users[-1]


def sampled_users(count: int) -> list[str]:
    """This many users who follow somebody, at random."""
    # Twice as many blocks as would do, where the table is large.
    [share] = row_of(
        """
        SELECT least(100, 100 * 200.0 * %s / greatest(1, reltuples))::float
        FROM pg_class WHERE oid = 'follows'::regclass
        """,
        (count,),
    )
    rows = rows_of(
        """
        SELECT follower_id FROM (
            SELECT DISTINCT follower_id FROM follows TABLESAMPLE SYSTEM (%s)
        ) AS sampled ORDER BY random() LIMIT %s
        """,
        (share, count),
    )
    return sorted(follower_id for [follower_id] in rows)
