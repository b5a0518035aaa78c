"""Trimming: the window of a user is his newest entries; older ones go, and the floor is raised in the
same transaction. What lies below it is merged from the posts."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from feeds.fanout.gate import together
from outbox.database.arrays import text_array_literal

__all__ = ["trim"]

USERS_AT_ONCE = 50


def _trimming() -> str:
    window = int(settings.FEED_WINDOW)
    full = window + window // 5  # 1.2 times the window
    return f"""
    WITH full_window AS MATERIALIZED (
        SELECT asked.user_id, (
            SELECT post_id FROM feed_entries WHERE feed_entries.user_id = asked.user_id
            ORDER BY post_id DESC OFFSET {window - 1} LIMIT 1) AS floor
        FROM unnest(%s::text[]) AS asked (user_id)
        WHERE EXISTS (
            SELECT FROM feed_entries WHERE feed_entries.user_id = asked.user_id
            ORDER BY post_id DESC OFFSET {full - 1} LIMIT 1)
    ), raised AS (
        INSERT INTO feed_windows (user_id, floor)
        SELECT user_id, floor FROM full_window ORDER BY user_id
        ON CONFLICT (user_id) DO UPDATE SET floor = excluded.floor
        WHERE feed_windows.floor < excluded.floor
    ), gone AS (
        DELETE FROM feed_entries USING full_window
        WHERE feed_entries.user_id = full_window.user_id
          AND feed_entries.post_id < full_window.floor
        RETURNING feed_entries.user_id
    )
    SELECT count(*) FROM gone
    """


def trim(users: Sequence[str]) -> int:
    """Trim those of these users whose entries have outgrown their window; returns the number of
    entries deleted. Fifty users a transaction."""
    deleted = 0
    for begin in range(0, len(users), USERS_AT_ONCE):
        some = text_array_literal(users[begin : begin + USERS_AT_ONCE])
        [[(count,)]] = together((_trimming(), (some,)))
        deleted += count
    return deleted
