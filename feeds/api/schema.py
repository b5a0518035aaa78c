"""The feeds API in the OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_field,
)
from rest_framework.serializers import CharField, ChoiceField, Field, IntegerField, ListField

from feeds.api.serializers import (
    FeedLimit,
    FeedOffset,
    FeedQuery,
    FollowersQuery,
    FollowingQuery,
    FollowSerializer,
    PostId,
    PostSerializer,
    PostsQuery,
    UserIdField,
)
from restapi.openapi import Moment
from restapi.operations import Body, Documents, Operations, answer, shape

__all__ = [
    "USER",
    "create_post",
    "delete_post",
    "follow",
    "get_feed",
    "get_post",
    "list_followers",
    "list_following",
    "list_posts",
    "unfollow",
]

API = Operations("feeds")
ID = 116_877_304_168_480_768
AT = "2026-11-19T11:59:03.123Z"
POST = {
    "post_id": ID,
    "post_id_str": str(ID),
    "author_id": "ada",
    "content": "Hello, world.",
    "created_at": AT,
}
# As USER_ID of feeds/events.py, for ECMA 262.
USER: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f/]+$",
    "not": {"enum": [".", ".."]},
}


extend_schema_field(USER)(UserIdField)
extend_schema_field({"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1})(PostId)
extend_schema_field({"type": "string"})(FeedLimit)
extend_schema_field({"type": "string"})(FeedOffset)  # whatever is no number is 0


# Answers, as feeds/api/views.py and feeds/queries.py make them


@extend_schema_field({"type": "integer", "format": "int64", "minimum": 0})
class _Number(Field[Any, Any, Any, Any]):
    """64 bits: more than a double holds exactly."""


CreatedPost = shape(
    "CreatedPost",
    "Answer to a new post.",
    post_id=_Number(help_text="May exceed 2^53: read `post_id_str` if your numbers are doubles."),
    post_id_str=CharField(),
    message=ChoiceField(["Post created successfully"]),
)
PostDetail = shape(
    "PostDetail",
    "One post.",
    post_id=_Number(),
    post_id_str=CharField(),
    author_id=CharField(),
    content=CharField(),
    created_at=Moment(help_text="By the database's clock."),
)
PostList = shape(
    "PostList",
    "Posts of an author.",
    author_id=CharField(),
    posts=PostDetail(many=True),
    next_before=_Number(allow_null=True, help_text="`before` of the next page; null: the last."),
)
Feed = shape(
    "Feed",
    "A page of a feed.",
    user_id=CharField(),
    post_ids=ListField(child=_Number(), help_text="Newest first."),
    post_ids_str=ListField(child=CharField()),
    next_before=_Number(allow_null=True, help_text="`before` of the next page; null: the last."),
    posts=PostDetail(many=True, required=False, help_text="With `expand=posts`."),
)
UserList = shape(
    "UserList",
    "User ids in an order that does not change.",
    user_id=CharField(),
    count=IntegerField(min_value=0),
    users=ListField(child=CharField()),
    next_cursor=CharField(
        allow_null=True, help_text="`cursor` of the next page; null: this is the last."
    ),
)


# Operations

POST_ID = OpenApiParameter(
    "post_id",
    {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    OpenApiParameter.PATH,
    description="An id that is not a number is a 404 too.",
    examples=[OpenApiExample("post", value=str(ID))],
)
USER_ID = OpenApiParameter(
    "user_id", USER, OpenApiParameter.PATH, examples=[OpenApiExample("user", value="ada")]
)
PAIR = {"follower_id": "grace", "followee_id": "ada"}


def _queried(name: str, value: str) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        USER,
        OpenApiParameter.QUERY,
        description="Give both in the query, or in the body.",
        examples=[OpenApiExample("user", value=value)],
    )


def _said(name: str, description: str, message: str) -> OpenApiResponse:
    """An answer that is one sentence."""
    return answer(shape(name, description, message=ChoiceField([message])), {"message": message})


list_posts = API.read(
    "listPosts",
    "Posts of an author, newest first",
    "Returns one page. Pages neither repeat nor skip a post that exists all the time.",
    parameters=[PostsQuery],
    answer=answer(PostList, {"author_id": "ada", "posts": [POST], "next_before": None}),
)
create_post = API.write(
    "createPost",
    "Post something",
    "The post is stored when the answer comes; feeds show it a moment later.",
    body=Body(PostSerializer, {"post": {"author_id": "ada", "content": "Hello, world."}}),
    answers={
        202: answer(
            CreatedPost,
            {"post_id": ID, "post_id_str": str(ID), "message": "Post created successfully"},
        )
    },
)

get_post = API.read(
    "getPost",
    "One post",
    "A deleted post is a 404.",
    parameters=[POST_ID],
    answer=answer(PostDetail, POST),
    refuses=[404],
)
delete_post = API.write(
    "deletePost",
    "Delete a post",
    "After the answer no feed shows the post. A repeated request gets the same answer.",
    parameters=[POST_ID],
    answers={200: _said("DeletedPost", "Answer to a deletion.", "Post deleted successfully")},
    refuses=[404],
)

follow = API.write(
    "follow",
    "Follow somebody",
    "After the answer the follower's feed has all posts of the followee. A repeated request gets the "
    "same answer. Users cannot follow themselves.",
    body=Body(FollowSerializer, {"pair": PAIR}),
    answers={200: _said("FollowedUser", "Answer to a follow.", "followed successfully")},
)
unfollow = API.write(
    "unfollow",
    "Unfollow somebody",
    "Give the two ids in the query, or in a body like that of `POST /follow`, which some proxies "
    "drop; if both are given, they must be equal. After the answer the follower's feed has no post of "
    "the followee. A repeated request gets the same answer.",
    parameters=[_queried(name, value) for name, value in PAIR.items()],
    answers={200: _said("UnfollowedUser", "Answer to the end of one.", "unfollowed successfully")},
    refuses=[413, 415],  # of the body, which the view names
)


get_feed = API.read(
    "getFeed",
    "The feed of a user",
    "The posts of the followed users and the user's own, newest first. Pages with `before` neither "
    "repeat nor skip a post that exists all the time, down to the first post. Give at most one of "
    "`before`, `after` and `offset`.",
    parameters=[
        USER_ID,
        FeedQuery,
        OpenApiParameter(
            "X-Cache",
            {"type": "string", "enum": ["HIT", "MISS"]},
            OpenApiParameter.HEADER,
            required=True,
            description="Whether the ids came from the cache. They are as correct as others.",
            response=[200],
        ),
    ],
    answer=answer(
        Feed,
        {
            "user_id": "grace",
            "post_ids": [ID],
            "post_ids_str": [str(ID)],
            "next_before": None,
        },
    ),
)


def _users(operation_id: str, summary: str, counted: str, query: type[Any]) -> Documents:
    page = {"user_id": "ada", "count": 1, "users": ["grace"], "next_cursor": None}
    return API.read(
        operation_id,
        summary,
        f"One page. `count` is {counted}.",
        parameters=[USER_ID, query],
        answer=answer(UserList, page),
    )


list_following = _users("listFollowing", "The users that a user follows", "exact", FollowingQuery)
list_followers = _users(
    "listFollowers", "The followers of a user", "that of a moment ago", FollowersQuery
)
