"""Endpoints of posts and follows: parse, one call, answer."""

from __future__ import annotations

from typing import Any

import msgspec
from django.http import HttpResponse
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from feeds import queries, services
from feeds.api import schema
from feeds.api.commands import CREATE_POST, read_post
from feeds.api.serializers import (
    FollowersQuery,
    FollowingQuery,
    FollowSerializer,
    PostsQuery,
    valid_user_id,
    validated_pair,
)
from feeds.queries import UsersPage
from feeds.services import Pair
from restapi.context import trace_context
from restapi.idempotency import NotDone, key_of, respond_once

__all__ = ["FollowView", "FollowersView", "FollowingView", "PostView", "PostsView"]

PAIR = ("follower_id", "followee_id")


class PostsView(APIView):
    @schema.list_posts
    def get(self, request: Request) -> Response:
        wanted = PostsQuery.of(request).validated_data
        author_id = wanted["author_id"]
        page = queries.posts_of_author(author_id, limit=wanted["limit"], before=wanted["before"])
        return Response(
            {
                "author_id": author_id,
                "posts": [msgspec.Raw(words) for words in page.posts],
                "next_before": page.next_before,
            }
        )

    @schema.create_post
    def post(self, request: Request) -> HttpResponse:
        """Store a post; once for each Idempotency-Key."""
        return CREATE_POST.respond(key_of(request), lambda: read_post(request.data))


class PostView(APIView):
    @schema.get_post
    def get(self, request: Request, post_id: str) -> Response:
        number = _parse_id(post_id)
        words = queries.posts_of([number]).get(number)
        if words is None:
            raise _no_post(post_id)
        return Response(msgspec.Raw(words))

    @schema.delete_post
    def delete(self, request: Request, post_id: str) -> HttpResponse:
        """Delete it; again is the same answer."""
        key, number = key_of(request), _parse_id(post_id)
        try:
            return respond_once(
                key,
                lambda: number,
                write=lambda ids: services.deleting_posts(ids, trace=trace_context()),
                answer=lambda *_: (200, {"message": "Post deleted successfully"}),
            )
        except NotDone:
            raise _no_post(post_id) from None


class FollowView(APIView):
    body_of_delete = FollowSerializer, schema.PAIR  # restapi/openapi.py

    @schema.follow
    def post(self, request: Request) -> HttpResponse:
        """Follow; again is the same answer."""
        return respond_once(
            key_of(request),
            lambda: validated_pair(request.data),
            write=lambda pairs: services.following(pairs, trace=trace_context()),
            answer=lambda *_: (200, {"message": "followed successfully"}),
        )

    @schema.unfollow
    def delete(self, request: Request) -> HttpResponse:
        """Follow no more; again is the same answer. Proxies may drop the body of a DELETE, so the two
        ids may stand in the query."""
        return respond_once(
            key_of(request, query=True),
            lambda: _pair_of(request),
            write=lambda pairs: services.unfollowing(pairs, trace=trace_context()),
            answer=lambda *_: (200, {"message": "unfollowed successfully"}),
        )


def _pair_of(request: Request) -> Pair:
    """That of the body and that of the query are the same, where there are both."""
    given = request.query_params
    twice = [name for name in PAIR if len(given.getlist(name)) > 1]
    if twice:
        raise ValidationError({name: ["Must be given once."] for name in twice})
    queried = {name: given[name] for name in PAIR if name in given}
    if not queried:
        return validated_pair(request.data)
    pair = validated_pair(queried)
    # No body is an empty form, or an empty object, for Django REST framework.
    if request.data != {} and validated_pair(request.data) != pair:
        raise ValidationError(
            "The body and the query have different ids; send the ids in one of them only."
        )
    return pair


def _shown(user_id: str, page: UsersPage) -> dict[str, Any]:
    """The users that a user follows, or the followers of a user."""
    return {
        "user_id": user_id,
        "count": page.in_all,
        "users": page.users,
        "next_cursor": page.next,
    }


class FollowingView(APIView):
    @schema.list_following
    def get(self, request: Request, user_id: str) -> Response:
        user_id = valid_user_id(user_id, request)
        wanted = FollowingQuery.of(request).validated_data
        page = queries.following_page(
            user_id, limit=wanted["limit"], after=wanted.get("cursor", "")
        )
        return Response(_shown(user_id, page))


class FollowersView(APIView):
    @schema.list_followers
    def get(self, request: Request, user_id: str) -> Response:
        user_id = valid_user_id(user_id, request)
        wanted = FollowersQuery.of(request).validated_data
        page = queries.followers_page(
            user_id, limit=wanted["limit"], after=wanted.get("cursor", (0, ""))
        )
        return Response(_shown(user_id, page))


def _parse_id(text: str) -> int:
    number = queries.parse_post_id(text)
    if number is None:
        raise _no_post(text)
    return number


def _no_post(text: str) -> Exception:
    return NotFound(f"There is no post {text}.")
