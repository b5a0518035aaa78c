"""The definition of valid requests to the feeds API."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request

from feeds.events import MAX_CONTENT, is_user_id
from feeds.queries import HIGHEST_ID, follower_of, user_of
from feeds.services import Pair
from restapi.converters import is_path_text
from restapi.cursors import CursorField
from restapi.fields import QueryInteger, QuerySerializer, Text

__all__ = [
    "DEFAULT_LIMIT",
    "MOST",
    "FeedLimit",
    "FeedOffset",
    "FeedQuery",
    "FollowSerializer",
    "FollowersQuery",
    "FollowingQuery",
    "PostId",
    "PostSerializer",
    "PostsQuery",
    "UserIdField",
    "valid_user_id",
    "validated_pair",
    "validated_post",
]

DEFAULT_LIMIT = 20
MOST = 100  # on a page
_DIGITS = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"[0-9]+")


class UserIdField(serializers.Field[str, Any, str, str]):
    """An opaque id, kept as it is."""

    default_error_messages = {
        "invalid": "Must be a string.",
        "user_id": "Must have 1 to 255 characters, no control characters, no /, and not be . or ..",
    }

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not is_user_id(data):
            self.fail("user_id")
        return data


def valid_user_id(text: str, request: Request) -> str:
    """The id of a request's path. Raises ValidationError."""
    if not is_path_text(text, getattr(request._request, "scope", {})):
        raise serializers.ValidationError({"user_id": ["Must be UTF-8."]})
    try:
        return str(_user_id.run_validation(text))
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"user_id": error.detail}) from None


_user_id = UserIdField()


class PostSerializer(serializers.Serializer[object]):
    """{"author_id", "content"}"""

    author_id = UserIdField()
    content = Text(max_length=MAX_CONTENT)


class FollowSerializer(serializers.Serializer[object]):
    """{"follower_id", "followee_id"}"""

    follower_id = UserIdField()
    followee_id = UserIdField()

    def validate(self, attrs: dict[str, str]) -> dict[str, str]:
        if attrs["follower_id"] == attrs["followee_id"]:
            raise serializers.ValidationError({"followee_id": ["A user cannot follow themselves."]})
        return attrs


class PostId(serializers.Field[int, Any, int, int]):
    """An unsigned number of 64 bits in a query. Those above all ids stand for the highest."""

    default_error_messages = {"invalid": "Must be an integer from 0 to 18446744073709551615."}

    def to_internal_value(self, data: Any) -> int:
        if not _DIGITS.fullmatch(str(data)) or int(data) >= 1 << 64:
            self.fail("invalid")
        return min(int(data), HIGHEST_ID)


class PostsQuery(QuerySerializer):
    """Query parameters of the posts of an author."""

    author_id = UserIdField()
    limit = QueryInteger(min_value=1, max_value=MOST, default=DEFAULT_LIMIT)
    before = PostId(default=HIGHEST_ID, help_text="Only older posts: `next_before` of a page.")


class FeedLimit(serializers.Field[int, Any, int, Any]):
    """Posts on a page of a feed; whatever is no number from 1 to 100 is 20."""

    def to_internal_value(self, data: Any) -> int:
        number = int(data) if _DIGITS.fullmatch(str(data)) else 0
        return number if 1 <= number <= MOST else DEFAULT_LIMIT


class FeedOffset(serializers.Field[int, Any, int, Any]):
    """Posts to skip, at most as many as are stored; anything that is not a number is 0."""

    default_error_messages = {
        "beyond": "Must be at most {window}. For older posts, send `before` with the `next_before` of the last page."
    }

    def to_internal_value(self, data: Any) -> int:
        if not _NUMBER.fullmatch(str(data)):
            return 0
        digits = str(data).lstrip("0") or "0"  # int() refuses very many
        if len(digits) > 20 or int(digits) > settings.FEED_WINDOW:
            self.fail("beyond", window=settings.FEED_WINDOW)
        return int(digits)


class FeedQuery(QuerySerializer):
    """Query parameters of a feed."""

    limit = FeedLimit(default=DEFAULT_LIMIT, help_text="1 to 100; any other value counts as 20.")
    offset = FeedOffset(default=0, help_text="A value that is not a number counts as 0.")
    before = PostId(required=False, help_text="Only older posts: `next_before` of a page.")
    after = PostId(required=False, help_text="The next newer posts after this one.")
    expand = serializers.ChoiceField(
        ["posts"], required=False, help_text="Adds the posts to their ids."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("before", "after", "offset") if name in self.initial_data]
        if len(given) > 1:
            raise serializers.ValidationError(
                {name: ["Only one of before, after and offset may be sent."] for name in given}
            )
        return attrs


# Base64url of a text of one byte a character: any other that follows this is one too.
_THREE = "[Q-Za-f][E-HU-Xk-n0-3][BFJNRVZdhlptx159][A-Za-z0-9_-]"


_cursor = partial(
    CursorField, wrong="Must be a next_cursor of this list.", max_length=1500, required=False
)


class FollowingQuery(QuerySerializer):
    """Query parameters of the list of users that a user follows."""

    limit = QueryInteger(min_value=1, max_value=MOST, default=DEFAULT_LIMIT)
    cursor = _cursor(user_of, pattern=f"^({_THREE}){{1,80}}$")


class FollowersQuery(QuerySerializer):
    """Query parameters of the list of a user's followers."""

    limit = QueryInteger(min_value=1, max_value=MOST, default=DEFAULT_LIMIT)
    cursor = _cursor(follower_of, pattern=f"^MC9[A-Za-z0-9_-]({_THREE}){{0,80}}$")


# Made once: a serializer copies all its fields when it is made, and `run_validation` keeps no
# state in it.
_POST = PostSerializer()
_FOLLOW = FollowSerializer()


def validated_post(body: object) -> tuple[str, str]:
    """Author and content of a POST /posts body. Raises ValidationError."""
    fields = _POST.run_validation(_object(body))
    return fields["author_id"], fields["content"]


def validated_pair(body: object) -> Pair:
    """The pair of a body, or of query parameters. Raises ValidationError."""
    fields = _FOLLOW.run_validation(_object(body))
    return Pair(fields["follower_id"], fields["followee_id"])


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise serializers.ValidationError("The body must be a JSON object.")
    return body
