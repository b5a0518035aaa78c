"""Endpoints of posts and follows: parse, one call, answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.http import HttpResponse
from rest_framework.exceptions import NotFound, ParseError, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from feeds import queries, services
from feeds.api import representations, schema
from feeds.api.commands import CREATE_POST, read_post
from feeds.api.serializers import (
    FollowersQuery,
    FollowingQuery,
    FollowSerializer,
    PostsQuery,
    valid_user_id,
    validated_pair,
)
from feeds.services import Pair
from outbox.database.round_trips import Steps
from restapi.answers import to_response
from restapi.context import trace_context
from restapi.idempotency import (
    IdempotencyKey,
    Keyed,
    NotDone,
    answer_of_used,
    key_of,
    perform_once,
)

__all__ = ["FollowView", "FollowersView", "FollowingView", "PostView", "PostsView"]

PAIR = ("follower_id", "followee_id")


@schema.posts
class PostsView(APIView):
    """/posts"""

    def get(self, request: Request) -> Response:
        """The posts of an author, newest first."""
        wanted = PostsQuery.of(request).validated_data
        author_id = wanted["author_id"]
        page = queries.posts_of_author(author_id, limit=wanted["limit"], before=wanted["before"])
        return Response(representations.posts(author_id, page))

    def post(self, request: Request) -> HttpResponse:
        """Store a post; once for each Idempotency-Key."""
        key = key_of(request)
        try:
            post = read_post(request.data)
        except (ParseError, ValidationError):
            return _kept_or_refused(key)
        [answer] = CREATE_POST.perform([Keyed(post, key)])
        return to_response(answer)


@schema.post
class PostView(APIView):
    """/posts/{id}"""

    def get(self, request: Request, post_id: str) -> Response:
        """One post."""
        number = _parse_id(post_id)
        words = queries.posts_of([number]).get(number)
        if words is None:
            raise _no_post(post_id)
        return Response(representations.post(words))

    def delete(self, request: Request, post_id: str) -> HttpResponse:
        """Delete it; again is the same answer."""
        key, number = key_of(request), _parse_id(post_id)
        try:
            [answer] = perform_once(
                [Keyed(number, key)],
                write=lambda ids: services.deleting_posts(ids, trace=trace_context()),
                answer=lambda *_: (200, {"message": "Post deleted successfully"}),
            )
        except NotDone:
            raise _no_post(post_id) from None
        return to_response(answer)


@schema.follow
class FollowView(APIView):
    """/follow"""

    body_of_delete = FollowSerializer, schema.PAIR  # restapi/openapi.py

    def post(self, request: Request) -> HttpResponse:
        """Follow; again is the same answer."""
        key = key_of(request)
        try:
            pair = validated_pair(request.data)
        except (ParseError, ValidationError):
            return _kept_or_refused(key)
        return _change(pair, key, _begin, "followed successfully")

    def delete(self, request: Request) -> HttpResponse:
        """Follow no more; again is the same answer. Proxies may drop the body of a DELETE, so the two
        ids may stand in the query."""
        key = key_of(request, query=True)
        try:
            pair = _pair_of(request)
        except (ParseError, ValidationError):
            return _kept_or_refused(key)
        return _change(pair, key, _end, "unfollowed successfully")


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
        raise ValidationError("The body and the query name different pairs.")
    return pair


def _begin(pairs: Sequence[Pair]) -> Steps[bool | None]:
    return services.following(pairs, trace=trace_context())


def _end(pairs: Sequence[Pair]) -> Steps[bool | None]:
    return services.unfollowing(pairs, trace=trace_context())


def _change(
    pair: Pair,
    key: IdempotencyKey | None,
    write: Callable[[Sequence[Pair]], Steps[bool | None]],
    message: str,
) -> HttpResponse:
    [answer] = perform_once(
        [Keyed(pair, key)], write=write, answer=lambda *_: (200, {"message": message})
    )
    return to_response(answer)


def _kept_or_refused(key: IdempotencyKey | None) -> HttpResponse:
    """In the handler of a request that is refused: what its key was used for comes first."""
    if (kept := answer_of_used(key)) is not None:
        return to_response(kept)
    raise  # noqa: PLE0704  (called in the handler)


@schema.following
class FollowingView(APIView):
    """/users/{id}/following"""

    def get(self, request: Request, user_id: str) -> Response:
        """The users that this user follows."""
        user_id = valid_user_id(user_id, request)
        wanted = FollowingQuery.of(request).validated_data
        page = queries.following_page(user_id, limit=wanted["limit"], after=wanted.get("cursor"))
        return Response(representations.users(user_id, page))


@schema.followers
class FollowersView(APIView):
    """/users/{id}/followers"""

    def get(self, request: Request, user_id: str) -> Response:
        """The followers of this user."""
        user_id = valid_user_id(user_id, request)
        wanted = FollowersQuery.of(request).validated_data
        page = queries.followers_page(user_id, limit=wanted["limit"], after=wanted.get("cursor"))
        return Response(representations.users(user_id, page))


def _parse_id(text: str) -> int:
    number = queries.parse_post_id(text)
    if number is None:
        raise _no_post(text)
    return number


def _no_post(text: str) -> Exception:
    return NotFound(f"There is no post {text}.")
