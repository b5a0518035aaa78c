"""Effects of the events of posts and follows: slices, and the numbers of followers. No entry is written
here: an effect holds the position of a partition, which must not wait for an author with many
followers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from django.db import transaction

from feeds import metrics
from feeds.events import (
    FOLLOW_EVENTS_TOPIC,
    Followed,
    PostCreated,
    PostDeleted,
    Unfollowed,
    decode_feed_event,
    decode_follow_event,
)
from feeds.fanout.modes import set_modes
from feeds.fanout.nudge import nudge
from feeds.fanout.slices import SLICE_FOLLOWERS, NewSlice, inserting, of_buckets
from feeds.models import AuthorMode, FeedAuthor, FeedSlice, SliceKind
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.ask import rows_of
from outbox.database.round_trips import RoundTrip, send
from outbox.envelope import EventEnvelope, correlation_fields
from outbox.publish.known import known_event_ids

__all__ = ["UnknownPost", "count_follows", "cut_posts", "decode_known", "reset_slices"]

log = structlog.get_logger("feeds.fanout")


class UnknownPost(LookupError):
    """The event names a post that our table does not hold, or of another author."""


def cut_posts(envelopes: Sequence[EventEnvelope]) -> None:
    """Cut posts and deletions into slices, in the open transaction.

    Raises msgspec.DecodeError for an event that is not of topic feed-events' shape, UnknownPost.
    """
    events = [decode_feed_event(envelope.payload) for envelope in envelopes]
    with _measured("cut_posts", Counter(event.type for event in events)):
        deleted = _are_deleted(events)
        authors = _authors(sorted({event.actor_id for event in events}))
        slices = [
            each
            for event in events
            # A post that is deleted already is in no feed and must not enter one.
            if isinstance(event, PostDeleted) or not deleted[event.payload.post_id]
            for each in _cut(event, *authors.get(event.actor_id, (0, AuthorMode.STORED)))
        ]
        send(RoundTrip(inserting(slices), nudge))


def decode_known(payload: str) -> PostCreated | PostDeleted:
    """Read a value of topic feed-events whose post there is. Raises msgspec.DecodeError, UnknownPost:
    what another producer has invented is its fault, and no reason to doubt the handler."""
    event = decode_feed_event(payload)
    _are_deleted([event])
    return event


def _cut(event: PostCreated | PostDeleted, followers: int, mode: str) -> list[NewSlice]:
    kind = SliceKind.DELETE if isinstance(event, PostDeleted) else SliceKind.POST
    post_id, author = event.payload.post_id, event.actor_id
    if mode == AuthorMode.MERGED:
        # No followers: only the list of his posts in the cache is to be filled again.
        return [NewSlice(kind, author, post_id, bucket_from=0, bucket_to=0)]
    return of_buckets(kind, author, followers, each=SLICE_FOLLOWERS, post_id=post_id)


def _are_deleted(events: Sequence[PostCreated | PostDeleted]) -> dict[int, bool]:
    """Post id -> whether it is deleted."""
    found = {
        id_: (author, is_deleted)
        for id_, author, is_deleted in rows_of(
            "SELECT id, author_id, deleted_at IS NOT NULL FROM posts WHERE id = ANY(%s::bigint[])",
            (array_literal({event.payload.post_id for event in events}),),
        )
    }
    for event in events:
        author, is_deleted = found.get(event.payload.post_id, (None, False))
        # One that is deleted may be nobody's by now: its author was erased.
        if author != event.actor_id and not is_deleted:
            raise UnknownPost(f"There is no post {event.payload.post_id} of this author")
    return {id_: is_deleted for id_, (_, is_deleted) in found.items()}


def _authors(ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Author -> (followers, mode)."""
    rows = FeedAuthor.objects.filter(author_id__in=ids)
    return {row.author_id: (row.followers, row.mode) for row in rows}


def count_follows(envelopes: Sequence[EventEnvelope]) -> None:
    """Add follows up to the numbers of followers, change the modes of authors, and cut backfills and
    clean-ups, in the open transaction. Both are right in any order, because entries name the follow
    through which they came.

    Events that our outbox does not hold change nothing: they are of other producers, or of a database
    that was set back. Raises msgspec.DecodeError for an event that is not of topic follow-events' shape.
    """
    events = _ours(envelopes, [decode_follow_event(envelope.payload) for envelope in envelopes])
    if not events:
        return
    with _measured("count_follows", Counter(event.type for event in events)):
        added = Counter[str]()
        for event in events:
            added[event.payload.followee_id] += 1 if isinstance(event, Followed) else -1
        set_modes(_add(added))
        send(RoundTrip(inserting([_slice_of(event) for event in events]), nudge))


def _ours(
    envelopes: Sequence[EventEnvelope], events: Sequence[Followed | Unfollowed]
) -> Sequence[Followed | Unfollowed]:
    """Those of these events that our outbox holds: a number of followers must be what the follows say."""
    known = known_event_ids(FOLLOW_EVENTS_TOPIC.name, [envelope.event_id for envelope in envelopes])
    theirs = [envelope for envelope in envelopes if envelope.event_id not in known]
    if not theirs:
        return events
    log.warning(
        "foreign_follows_passed_by",
        events=len(theirs),
        **correlation_fields(envelope.trace.correlation_id for envelope in theirs),
    )
    both = zip(envelopes, events, strict=True)
    return [event for envelope, event in both if envelope.event_id in known]


def _add(added: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    """Author -> (followers, mode) after the addition. Their rows are locked."""
    authors = sorted(added)
    rows = rows_of(
        """
        INSERT INTO feed_authors (author_id, followers)
        SELECT * FROM unnest(%s::text[], %s::bigint[]) AS added (author_id, followers)
        ORDER BY author_id
        ON CONFLICT (author_id) DO UPDATE
        SET followers = feed_authors.followers + excluded.followers
        RETURNING author_id, followers, mode
        """,
        (text_array_literal(authors), array_literal(added[author] for author in authors)),
    )
    return {author: (followers, mode) for author, followers, mode in rows}


def _slice_of(event: Followed | Unfollowed) -> NewSlice:
    pair = event.payload
    return NewSlice(
        SliceKind.BACKFILL if isinstance(event, Followed) else SliceKind.CLEANUP,
        pair.followee_id,
        follower_id=pair.follower_id,
        follow_number=pair.number,
    )


def reset_slices() -> None:
    """Forget the slices of posts and deletions, in the open transaction, before a replay cuts them
    again. Entries stay: what is written again is the same."""
    FeedSlice.objects.filter(kind__in=[SliceKind.POST, SliceKind.DELETE]).delete()


@contextmanager
def _measured(handler: str, types: Mapping[str, int]) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds = time.perf_counter() - begin

    def note() -> None:
        metrics.PROCESSING.labels(handler).observe(seconds)
        for type_, count in types.items():
            metrics.EVENTS_PROCESSED.labels(type_).inc(count)

    transaction.on_commit(note, robust=True)
