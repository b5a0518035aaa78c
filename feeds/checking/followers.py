"""Stored numbers of followers against the follows (docs/feeds.md#checking). A wrong one makes no page
wrong, but posts are cut into slices, and authors merged, by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from django.db import transaction

from feeds.fanout.modes import set_modes
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import changed_by, rows_of

__all__ = ["WrongCount", "recount", "wrong_counts"]


class WrongCount(NamedTuple):
    """How many followers of an author are kept, and how many should be: those who follow, without what the
    events that are still to be applied will add."""

    author_id: str
    kept: int
    right: int


_OF_ALL = """
    SELECT coalesce(author_id, followee_id), coalesce(followers, 0), coalesce(following, 0)
    FROM feed_authors
    FULL JOIN (
        SELECT followee_id, count(*) AS following FROM follows WHERE active GROUP BY 1
    ) AS counted ON followee_id = author_id
    WHERE coalesce(followers, 0) <> coalesce(following, 0)
"""
_OF_SOME = """
    SELECT asked.author_id, coalesce(followers, 0), following
    FROM unnest(%s::text[]) AS asked (author_id)
    LEFT JOIN feed_authors USING (author_id)
    CROSS JOIN LATERAL (
        SELECT count(*) AS following FROM follows
        WHERE followee_id = asked.author_id AND active
    ) AS counted
    WHERE coalesce(followers, 0) <> following
"""
# What the events that are not applied will add. One that waits as a dead letter (outcome 1) may still come.
_OWED = """
    SELECT followee_id, sum(CASE type WHEN 'FOLLOWED' THEN 1 ELSE -1 END)
    FROM (
        SELECT type, payload::json -> 'payload' ->> 'followee_id' AS followee_id
        FROM event_outbox event
        WHERE topic = 'follow-events' AND NOT EXISTS (
            SELECT FROM inbox_receipt receipt
            WHERE receipt.event_id = event.event_id AND receipt.handler = 'count_follows'
              AND receipt.outcome <> 1)
    ) AS open WHERE followee_id = ANY(%s::text[]) GROUP BY 1
"""
# A handler that adds to one of these holds its row until it has committed, with its receipts.
_LOCK = """
    INSERT INTO feed_authors (author_id)
    SELECT author_id FROM unnest(%s::text[]) AS asked (author_id) ORDER BY author_id
    ON CONFLICT (author_id) DO UPDATE SET followers = feed_authors.followers
"""
_SET = """
    UPDATE feed_authors SET followers = counted.followers
    FROM unnest(%s::text[], %s::bigint[]) AS counted (author_id, followers)
    WHERE feed_authors.author_id = counted.author_id
    RETURNING feed_authors.author_id, feed_authors.followers, mode
"""


def wrong_counts(authors: Sequence[str] | None = None) -> list[WrongCount]:
    """The wrong numbers, of these authors or of all, as the open transaction sees them."""
    if authors is None:
        different = sorted(rows_of(_OF_ALL))
    else:
        different = sorted(rows_of(_OF_SOME, (text_array_literal(authors),)))
    wrong = text_array_literal([author for author, _, _ in different])
    owed: dict[str, int] = dict(rows_of(_OWED, (wrong,))) if different else {}
    found = (
        WrongCount(author, kept, following - int(owed.get(author, 0)))
        for author, kept, following in different
    )
    return [each for each in found if each.kept != each.right]


def recount(authors: Sequence[str]) -> None:
    """Correct the numbers of these authors, and change their modes accordingly, in one
    transaction."""
    with transaction.atomic():
        changed_by(_LOCK, (text_array_literal(authors),))
        # A statement of its own: its snapshot is newer than the locks.
        if wrong := wrong_counts(authors):
            names, numbers = [each.author_id for each in wrong], [each.right for each in wrong]
            rows = rows_of(_SET, (text_array_literal(names), array_literal(numbers)))
            set_modes({author: (count, mode) for author, count, mode in rows})
