"""Posts and follows as a test has them: stored with their events, without a request."""

from __future__ import annotations

from collections.abc import Sequence

from feeds import ids
from feeds.services import NewPost, Pair, creating_posts, following
from outbox.database.round_trips import run, send
from outbox.database.unit_of_work import joined_unit_of_work

__all__ = ["create_posts", "follow", "new_post"]


def new_post(author_id: str, content: str) -> NewPost:
    """A post with a new id. Raises NoNode."""
    return NewPost(post_id=ids.draw(), author_id=author_id, content=content)


def create_posts(posts: Sequence[NewPost]) -> Sequence[int]:
    """Store posts with their events, in the open transaction, else in one of its own: all or none.
    Returns their ids. Raises NotStored and OutcomeUnknown where the transaction is its own."""
    change = creating_posts(posts)
    with joined_unit_of_work():
        send(change.trip)
    return change.results


def follow(pairs: Sequence[Pair]) -> list[bool]:
    """Let each follower follow; whether that is new. In the open transaction, else in one of its own."""
    with joined_unit_of_work():
        return [bool(new) for new in run(following(pairs))]
