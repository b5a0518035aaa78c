"""The SQL of pages. Each statement answers many at once, and each text is one whatever is asked
(docs/feeds.md#reading says what a page is made of).

Ids come as text with commas: the driver's own way through arrays costs more than the rest of a page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import Row, Statement

__all__ = [
    "NEWEST",
    "OfAuthor",
    "Range",
    "Source",
    "below_the_floor",
    "ids_of",
    "newer_anywhere",
    "newer_of",
    "newer_statement",
    "of_authors",
    "of_authors_statement",
    "sources_of",
    "sources_statement",
]

NEWEST = (1 << 63) - 1  # before this is everything

_OF_AUTHOR = "SELECT id FROM posts WHERE author_id = {} AND deleted_at IS NULL AND {}"
_ENTRIES = """
    SELECT entry.post_id AS id FROM feed_entries AS entry
    JOIN follows ON follower_id = reader AND followee_id = entry.author_id
        AND number = entry.follow_number AND active
    JOIN posts ON posts.id = entry.post_id AND deleted_at IS NULL
    WHERE user_id = reader AND entry.post_id >= floor AND {}
    ORDER BY entry.post_id {} LIMIT most
"""
_OF_FOLLOWED = """
    SELECT theirs.id FROM follows CROSS JOIN LATERAL ({}) AS theirs
    WHERE follower_id = reader AND active AND {}
"""
_LARGE = "ARRAY(SELECT author_id FROM feed_authors WHERE mode <> 'stored')"
_FLOOR = "coalesce((SELECT floor FROM feed_windows WHERE user_id = reader), 0)"
_KEPT = "id >= floor AND id < below ORDER BY id DESC LIMIT most"
_STORED = f"""
    SELECT DISTINCT id FROM (
        ({_ENTRIES.format("entry.post_id < below", "DESC")})
        UNION ALL ({_OF_AUTHOR.format("reader", _KEPT)})
        UNION ALL ({_OF_FOLLOWED.format(_OF_AUTHOR.format("followee_id", _KEPT), "NOT backfilled")})
    ) AS stored ORDER BY id DESC LIMIT most
"""
_MERGED = f"""
    SELECT DISTINCT id FROM unnest(large) AS followee (followee_id)
    CROSS JOIN LATERAL ({_OF_AUTHOR.format("followee_id", _KEPT.replace("most", "most_merged"))})
    ORDER BY id DESC LIMIT most_merged
"""
# Floor; the newest ids that are stored for the reader, his own among them; the large authors that he
# follows; the newest ids of theirs; the snapshot.
_SOURCES = f"""
    SELECT place, floor, array_to_string(ARRAY({_STORED}), ','), to_json(large)::text,
        array_to_string(ARRAY({_MERGED}), ','), pg_current_snapshot()::text
    FROM unnest(%s::text[], %s::bigint[], %s::int[], %s::int[])
        WITH ORDINALITY AS asked (reader, below, most, most_merged, place)
    CROSS JOIN LATERAL (SELECT {_FLOOR} AS floor, ARRAY(
        SELECT followee_id FROM follows
        WHERE follower_id = reader AND active AND followee_id = ANY({_LARGE})
    ) AS large OFFSET 0) AS of_reader
"""
_OF_AUTHORS = f"""
    SELECT place, array_to_string(ARRAY(
        {_OF_AUTHOR.format("author", "id < below ORDER BY id DESC LIMIT most")}
    ), ',')
    FROM unnest(%s::text[], %s::bigint[], %s::int[])
        WITH ORDINALITY AS asked (author, below, most, place)
"""
_ABOVE = "id > after ORDER BY id LIMIT most"
_NEWER = f"""
    SELECT place, floor, array_to_string(ARRAY(
        SELECT DISTINCT id FROM (
            ({_ENTRIES.format("entry.post_id > after", "ASC")})
            UNION ALL ({_OF_AUTHOR.format("reader", _ABOVE)})
            UNION ALL ({
    _OF_FOLLOWED.format(
        _OF_AUTHOR.format("followee_id", _ABOVE),
        f"(NOT backfilled OR followee_id = ANY({_LARGE}))",
    )
})
        ) AS newer ORDER BY id LIMIT most
    ), ',')
    FROM unnest(%s::text[], %s::bigint[], %s::int[])
        WITH ORDINALITY AS asked (reader, after, most, place)
    CROSS JOIN LATERAL (SELECT {_FLOOR} AS floor OFFSET 0) AS of_reader
"""


def _of_everybody(condition: str) -> str:
    """The sentence of the contract: posts, not deleted, of who is followed now, and the reader's own."""
    theirs, own = (
        _OF_AUTHOR.format("followee_id", condition),
        _OF_AUTHOR.format("reader", condition),
    )
    return f"({_OF_FOLLOWED.format(theirs, 'true')}) UNION ALL ({own})"


_BELOW = f"""
    SELECT array_to_string(ARRAY(
        SELECT id FROM ({_of_everybody("id < below ORDER BY id DESC LIMIT most")}) AS older
        ORDER BY id DESC LIMIT most
    ), ',')
    FROM (SELECT %s::text AS reader, %s::bigint AS below, %s::int AS most OFFSET 0) AS asked
"""
_ANYWHERE = f"""
    SELECT array_to_string(ARRAY(
        SELECT id FROM ({_of_everybody(_ABOVE)}) AS newer ORDER BY id LIMIT most
    ), ',')
    FROM (SELECT %s::text AS reader, %s::bigint AS after, %s::int AS most OFFSET 0) AS asked
"""


class Range(NamedTuple):
    """Posts of a feed before (or after) one of them."""

    reader: str
    edge: int


class OfAuthor(NamedTuple):
    """The same of one author, with how many at most."""

    author: str
    below: int
    most: int


class Source(NamedTuple):
    """What a page is made of, newest first, complete down to `floor`: what is stored for the reader,
    and what his `large` authors have posted. As of `snapshot`."""

    floor: int
    stored: list[int]
    large: list[str]
    merged: list[int]
    snapshot: str


def sources_statement(asked: dict[Range, tuple[int, int]]) -> Statement:
    """What is before each of them, with how many at most: stored, and of large authors."""
    return _SOURCES, (
        text_array_literal([each.reader for each in asked]),
        array_literal(each.edge for each in asked),
        array_literal(most for most, _ in asked.values()),
        array_literal(most_merged for _, most_merged in asked.values()),
    )


def sources_of(rows: Sequence[Row], asked: Collection[Range]) -> dict[Range, Source]:
    """What its rows say."""
    by_place = {
        place: Source(floor, _ids(stored), _authors(large), _ids(merged), snapshot)
        for place, floor, stored, large, merged, snapshot in rows
    }
    return {each: by_place[place] for place, each in enumerate(asked, 1)}


def of_authors_statement(asked: Collection[OfAuthor]) -> Statement:
    """The newest posts of authors."""
    return _OF_AUTHORS, (
        text_array_literal([each.author for each in asked]),
        array_literal(each.below for each in asked),
        array_literal(each.most for each in asked),
    )


def of_authors(rows: Sequence[Row], asked: Collection[OfAuthor]) -> dict[OfAuthor, list[int]]:
    """What its rows say, newest first."""
    by_place: dict[int, str] = dict(rows)
    return {each: _ids(by_place[place]) for place, each in enumerate(asked, 1)}


def newer_statement(asked: dict[Range, int]) -> Statement:
    """The next newer posts after each of them, as many as are wanted."""
    return _NEWER, (
        text_array_literal([each.reader for each in asked]),
        array_literal(each.edge for each in asked),
        array_literal(asked.values()),
    )


def newer_of(rows: Sequence[Row], asked: Collection[Range]) -> dict[Range, tuple[int, list[int]]]:
    """The floor, at and above which they are complete, and their ids, the oldest first."""
    by_place = {place: (floor, _ids(ids)) for place, floor, ids in rows}
    return {each: by_place[place] for place, each in enumerate(asked, 1)}


def below_the_floor(asked: Range, most: int) -> Statement:
    """From the posts alone, whoever is followed: what is before; `ids_of` reads its row."""
    return _BELOW, (asked.reader, asked.edge, most)


def newer_anywhere(asked: Range, most: int) -> Statement:
    """The same of what is after, the oldest first."""
    return _ANYWHERE, (asked.reader, asked.edge, most)


def ids_of(rows: Sequence[Row]) -> list[int]:
    """The row of `below_the_floor` or `newer_anywhere`."""
    return _ids(rows[0][0])


_decode_ids = msgspec.json.Decoder(list[int]).decode
_authors = msgspec.json.Decoder(list[str]).decode


def _ids(text: str) -> list[int]:
    return _decode_ids(f"[{text}]") if text else []
