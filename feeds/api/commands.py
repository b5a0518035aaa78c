"""From a POST /posts body to the command, and from its result to the answer; view and hot path
use it."""

from __future__ import annotations

from typing import Any

import msgspec

from feeds import ids, services
from feeds.api.serializers import validated_post
from feeds.events import MAX_CONTENT, is_user_id
from feeds.services import NewPost
from restapi.context import trace_context
from restapi.hot_path import Asked, HotPath
from restapi.json import parse_json

__all__ = ["CREATE_POST", "created", "plain_post", "read_post"]


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    author_id: str
    content: str


_decode = msgspec.json.Decoder(_Plain).decode


def read_post(body: object) -> NewPost:
    """The post that a body asks for; waits for a node if this process has none yet.
    Raises ValidationError and NoNode."""
    author_id, content = validated_post(body)
    return NewPost(post_id=ids.draw(), author_id=author_id, content=content, trace=trace_context())


def plain_post(body: bytes) -> tuple[str, str] | None:
    """What `validated_post(parse_json(body))` returns; None means that the caller has to run
    that.

    For the bodies that nearly everyone sends, in a microsecond. Keys given twice are found by
    counting: without escapes every string has two quotation marks, and all that there are have been
    read.
    """
    if b"\\" in body or body.count(b'"') != 8:
        return None
    try:
        post = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    content = post.content
    if not content.strip() or len(content) > MAX_CONTENT or not is_user_id(post.author_id):
        return None
    return post.author_id, content


def _read(asked: Asked) -> NewPost:
    """On the event loop, so without waiting for a node number: without one the request goes to
    Django."""
    author_id, content = plain_post(asked.body) or validated_post(parse_json(asked.body))
    return NewPost(
        post_id=ids.draw(wait=0), author_id=author_id, content=content, trace=trace_context()
    )


def created(post: NewPost, post_id: int) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    return 202, services.created_words(post_id)


CREATE_POST = HotPath(
    method="POST",
    path="/posts",
    route="posts",
    read=_read,
    write=services.creating_posts,
    answer=created,
)
