"""How the posts of an author reach feeds: as entries, or merged at read (docs/feeds.md#fan-out).

stored -> merged    at FEED_MERGE_FOLLOWERS: his new posts are no longer cut into slices
merged -> storing   below half of it: they are cut again, readers still merge, all are backfilled
storing -> stored   once all of these are done
storing -> merged   if he grows again before"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from feeds.fanout.follows import filling
from feeds.fanout.gate import TOGETHER
from feeds.fanout.slices import OWED, NewSlice, SliceBatch, WrittenSlices, inserting, of_buckets
from feeds.ids import first_id_at
from feeds.models import AuthorMode, ChangeKind, FeedSlice, SliceKind
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import changed_by, rows_of
from outbox.database.round_trips import RoundTrip, send

__all__ = ["end_storing", "set_modes"]

FILLED_AT_ONCE = 20  # followers of a slice that fills them with an author's posts
WAIT_SECONDS = 0.2
# Entries that the last step writes itself: of posts whose slices are not done by then.
LAST_ENTRIES = 50_000
# A post commits within this time after its id was drawn.
ID_MARGIN = timedelta(minutes=1)


def set_modes(counts: Mapping[str, tuple[int, str]]) -> None:
    """Change the modes of authors whose number of followers has changed, in the open transaction, which
    holds their rows. `counts`: author -> (followers, mode)."""
    at = settings.FEED_MERGE_FOLLOWERS
    merged, storing = [], []
    for author, (followers, mode) in sorted(counts.items()):
        if followers >= at and mode != AuthorMode.MERGED:
            merged.append(author)
        elif followers < at / 2 and mode == AuthorMode.MERGED:
            storing.append(author)
    if merged:
        # A worker that still holds a slice of a change back to storing finishes nothing.
        kinds = [SliceKind.STORING, SliceKind.STORED]
        FeedSlice.objects.filter(kind__in=kinds, author_id__in=merged).delete()
        _set_mode(merged, AuthorMode.MERGED)
    if storing:
        _set_mode(storing, AuthorMode.STORING)
        send(RoundTrip(inserting([s for a in storing for s in _storing(a, counts[a][0])])))


def _storing(author: str, followers: int) -> Iterable[NewSlice]:
    yield from of_buckets(SliceKind.STORING, author, followers, each=FILLED_AT_ONCE)
    yield NewSlice(SliceKind.STORED, author)


def _set_mode(authors: list[str], mode: AuthorMode) -> None:
    changed_by(
        """
        WITH changed AS (
            UPDATE feed_authors SET mode = %s WHERE author_id = ANY(%s::text[])
            RETURNING author_id
        )
        INSERT INTO feed_changes (kind, author_id) SELECT %s, author_id FROM changed
        """,
        (mode, text_array_literal(authors), ChangeKind.MODE),
    )


# Who changes the mode or the number of followers of this author holds his row.
_LOCK = """
    SELECT FROM feed_slices slice
    JOIN feed_authors author ON author.author_id = slice.author_id
    WHERE slice.id = ANY(%s::bigint[])
    FOR UPDATE OF author
"""
# A statement of its own: its snapshot is newer than the lock, so it sees the slices of a change that the
# lock was waited for.
_STATE = """
    SELECT author.author_id, author.followers, slice.created_at,
           EXISTS (SELECT FROM feed_slices other
                   WHERE other.kind = 'storing' AND other.author_id = author.author_id)
    FROM feed_slices slice
    JOIN feed_authors author ON author.author_id = slice.author_id AND author.mode = 'storing'
    WHERE slice.id = ANY(%s::bigint[])
"""

# Posts that may have committed behind the slices that filled, and are not stored for everybody yet. What
# was cut for nobody, because its author was merged then, had committed before.
_NOT_STORED = f"""
    WITH missing AS MATERIALIZED (
        SELECT id AS post_id, NULL::smallint AS bucket FROM posts
        WHERE author_id = %s AND deleted_at IS NULL AND id >= %s
    )
    SELECT post_id FROM missing WHERE {OWED} LIMIT %s
"""

_ALL_FOLLOWERS = """
    WITH followed AS MATERIALIZED (
        SELECT follower_id, followee_id AS author_id, number FROM follows
        WHERE followee_id = %s AND active
    ), """
_THESE = "AND posts.id = ANY(%s::bigint[])"


def end_storing(batch: SliceBatch) -> WrittenSlices:
    """The author is stored again, once all his followers are filled; this writes the posts that came
    meanwhile and are not cut or written yet. If they are many, it lets their slices go first (if these
    have failed, an operator)."""
    with transaction.atomic():
        rows = send(RoundTrip([TOGETHER, (_LOCK, (batch.ids,)), (_STATE, (batch.ids,))]))[2]
        if not rows:
            return WrittenSlices()
        [(author, followers, since, unfinished)] = rows
        if unfinished:
            return WrittenSlices(again_in=WAIT_SECONDS)
        at_most = max(1, LAST_ENTRIES // max(1, followers))
        first = first_id_at(since - ID_MARGIN)
        late = [post_id for [post_id] in rows_of(_NOT_STORED, (author, first, at_most + 1))]
        if len(late) > at_most:
            return WrittenSlices(again_in=WAIT_SECONDS)
        fill = _ALL_FOLLOWERS + filling(only=_THESE), (author, array_literal(late))
        filled = send(RoundTrip([fill]))[0] if late else []
        _set_mode([author], AuthorMode.STORED)
    return WrittenSlices(
        grown=sorted({user for user, _ in filled}), count=filled[0][1] if filled else 0
    )
