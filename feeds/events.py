"""The public events of posts and follows: topics feed-events and follow-events.

The value of a message has a 64-bit `event_id`, the envelope a UUID; each follows from the other
(`event_uuid`), and both from what happened (docs/feeds.md#events)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, ClassVar, Self

import msgspec

from outbox.topics import Topic

__all__ = [
    "FEED_EVENTS",
    "FEED_EVENTS_TOPIC",
    "FOLLOW_EVENTS",
    "FOLLOW_EVENTS_TOPIC",
    "LIVE_FEEDS",
    "MAX_CONTENT",
    "USER_ID",
    "FeedEvent",
    "FollowEvent",
    "Followed",
    "PostCreated",
    "PostDeleted",
    "Unfollowed",
    "decode_feed_event",
    "decode_follow_event",
    "event_uuid",
    "events_of_post",
    "is_user_id",
]

# No writer locks a row of the author, so two posts of one author may come in any order; the two events
# of a post keep theirs, because a post is deleted by who has read its committed row.
FEED_EVENTS_TOPIC = Topic("feed-events", ordered_keys=False)
# Nor one of the follower: the pair's row is locked, so the events of one pair keep their order.
FOLLOW_EVENTS_TOPIC = Topic("follow-events", ordered_keys=False)

MAX_CONTENT = 10_000  # characters
LIVE_FEEDS = "feeds"  # name of feed_log among the logs that WebSockets follow
# 1 to 255 characters, no control characters, no half of a surrogate pair, no "/", not "." or "..".
USER_ID = r"\A(?!\.{1,2}\Z)[^\x00-\x1f\x7f-\x9f\ud800-\udfff/]{1,255}\Z"
_USER_ID = re.compile(USER_ID)


def is_user_id(text: str) -> bool:
    """Whether this can be the id of a user."""
    return _USER_ID.fullmatch(text) is not None


# Bounds of the contract, asked of what is read: anybody may write to our topics.
_Id = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
_IdText = Annotated[str, msgspec.Meta(max_length=20)]
_User = Annotated[str, msgspec.Meta(pattern=USER_ID)]
_Content = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CONTENT)]

_encode = msgspec.json.Encoder().encode


def event_uuid(number: int, kind: str) -> str:
    """The UUID of an event: version 8 (RFC 9562) with the 64 bits of its `event_id` in their order,
    then the kind."""
    bits = f"{number:016x}"
    return f"{bits[:8]}-{bits[8:12]}-8{bits[12:15]}-8{bits[15]}00-{kind}"


_OF_POSTS = "000000000001"
_OF_FOLLOWS = "000000000002"


def events_of_post(post_id: int) -> tuple[str, str]:
    """The UUIDs of its POST_CREATED and of its POST_DELETED, whether they exist or not."""
    return event_uuid(post_id, _OF_POSTS), event_uuid(post_id + 1, _OF_POSTS)


class CreatedPost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The content of POST_CREATED."""

    post_id: _Id
    post_id_str: _IdText
    content: _Content


class DeletedPost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The content of POST_DELETED."""

    post_id: _Id
    post_id_str: _IdText


class FollowedPair(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whose follow began or ended, and its number."""

    follower_id: _User
    followee_id: _User
    number: _Id


class _Event(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    rename={"number": "event_id", "number_str": "event_id_str"},
):
    """What every event has. `actor_id` is who did it, `timestamp` Unix seconds."""

    source: ClassVar[str] = "/feeds"
    kind: ClassVar[str]

    number: _Id
    number_str: _IdText
    actor_id: _User
    timestamp: int

    @property
    def key(self) -> str:
        """The author, or the follower."""
        return self.actor_id

    @property
    def event_id(self) -> str:
        """UUID; the value's `event_id` is `number`."""
        return event_uuid(self.number, self.kind)

    def to_json(self) -> str:
        """The message's value."""
        return _encode(self).decode()


class FeedEvent(_Event, frozen=True, kw_only=True):
    """An event of topic feed-events."""

    topic: ClassVar[Topic] = FEED_EVENTS_TOPIC
    kind: ClassVar[str] = _OF_POSTS


class PostCreated(FeedEvent, frozen=True, kw_only=True, tag="POST_CREATED"):
    """A post was stored."""

    type: ClassVar[str] = "POST_CREATED"

    payload: CreatedPost

    @classmethod
    def of(cls, post_id: int, author_id: str, content: str, timestamp: int) -> PostCreated:
        text = str(post_id)
        return cls(
            number=post_id,
            number_str=text,
            actor_id=author_id,
            payload=CreatedPost(post_id=post_id, post_id_str=text, content=content),
            timestamp=timestamp,
        )


class PostDeleted(FeedEvent, frozen=True, kw_only=True, tag="POST_DELETED"):
    """A post was deleted."""

    type: ClassVar[str] = "POST_DELETED"

    payload: DeletedPost

    @classmethod
    def of(cls, post_id: int, author_id: str, timestamp: int) -> PostDeleted:
        return cls(
            number=post_id + 1,
            number_str=str(post_id + 1),
            actor_id=author_id,
            payload=DeletedPost(post_id=post_id, post_id_str=str(post_id)),
            timestamp=timestamp,
        )


FEED_EVENTS = (PostCreated, PostDeleted)


class FollowEvent(_Event, frozen=True, kw_only=True):
    """An event of topic follow-events."""

    topic: ClassVar[Topic] = FOLLOW_EVENTS_TOPIC
    kind: ClassVar[str] = _OF_FOLLOWS

    offset: ClassVar[int]

    payload: FollowedPair

    @classmethod
    def of(cls, follower_id: str, followee_id: str, number: int, timestamp: int) -> Self:
        """That of the follow with this number."""
        event_id = 2 * number + cls.offset
        return cls(
            number=event_id,
            number_str=str(event_id),
            actor_id=follower_id,
            payload=FollowedPair(follower_id=follower_id, followee_id=followee_id, number=number),
            timestamp=timestamp,
        )


class Followed(FollowEvent, frozen=True, kw_only=True, tag="FOLLOWED"):
    """A follow began."""

    type: ClassVar[str] = "FOLLOWED"
    offset: ClassVar[int] = 0


class Unfollowed(FollowEvent, frozen=True, kw_only=True, tag="UNFOLLOWED"):
    """A follow ended."""

    type: ClassVar[str] = "UNFOLLOWED"
    offset: ClassVar[int] = 1


FOLLOW_EVENTS = (Followed, Unfollowed)

# Each reads a value of its topic. Raises msgspec.DecodeError for anything else, also for what exceeds
# the bounds of the contract.
decode_feed_event: Callable[[str], PostCreated | PostDeleted] = msgspec.json.Decoder(
    PostCreated | PostDeleted
).decode
decode_follow_event: Callable[[str], Followed | Unfollowed] = msgspec.json.Decoder(
    Followed | Unfollowed
).decode
