"""GET /feeds/{user}: from the query to a page, and from the page to the answer; view and hot path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from feeds import cache, metrics, queries
from feeds.api import schema
from feeds.api.serializers import DEFAULT_LIMIT, MOST, FeedQuery, valid_user_id
from feeds.reading.pages import pages
from feeds.reading.questions import FeedPage, FeedQuestion
from restapi.answers import Answer, json_answer, to_response
from restapi.hot_path import Asked, HotLookup
from restapi.hot_query import whole_number
from restapi.lookup import LookupSteps, run

__all__ = ["READ_FEED", "FeedView"]

_HIT, _MISS = ((b"x-cache", b"HIT"),), ((b"x-cache", b"MISS"),)


def _question(asked: Asked) -> FeedQuestion:
    if len(asked.given.keys() & {"before", "after", "offset"}) > 1:
        raise ValueError("two of them")
    return FeedQuestion(asked.id, **{"limit": DEFAULT_LIMIT, **asked.given})


def _steps(questions: Sequence[FeedQuestion]) -> LookupSteps[Sequence[Answer | None]]:
    """None for a page below the floor, because a slow page would delay the others."""
    found = yield from pages(questions, deep=False)
    _count(found)
    return [
        None if page is None else _answer(question, page)
        for question, page in zip(questions, found, strict=True)
    ]


def _count(found: Sequence[FeedPage | None]) -> None:
    hits = sum(page.hit for page in found if page)
    metrics.CACHE_HITS.inc(hits)
    metrics.CACHE_MISSES.inc(len(found) - found.count(None) - hits)


def _answer(
    question: FeedQuestion, page: FeedPage, expanded: dict[int, str] | None = None
) -> Answer:
    ids, next_before = page.ids, page.next_before
    if expanded is not None:  # a post that was deleted in between is in neither
        ids = [id_ for id_ in ids if id_ in expanded]
    body: dict[str, Any] = {
        "user_id": question.reader,
        "post_ids": ids,
        "post_ids_str": list(map(str, ids)),
        "next_before": next_before,
    }
    if expanded is not None:
        body["posts"] = [msgspec.Raw(expanded[id_]) for id_ in ids]
    return json_answer(200, body, _HIT if page.hit else _MISS)


READ_FEED = HotLookup(
    path="/feeds/{id}",
    route="feeds/<text:user_id>",
    # Of ids, those that no percent-encoding changes; "." and ".." are nobody's.
    id=re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~-]{1,255}"),
    parameters={
        "limit": whole_number(1, MOST),
        "offset": whole_number(0, settings.FEED_WINDOW),
        "before": whole_number(0, (1 << 64) - 1),
        "after": whole_number(0, (1 << 64) - 1),
    },
    redis="FEED_CACHE_URL",
    read=_question,
    rows=lambda question: question.offset + question.limit,
    steps=_steps,
)


class FeedView(APIView):
    @schema.get_feed
    def get(self, request: Request, user_id: str) -> HttpResponse:
        """A page of the feed: the newest, or what is before or after a post."""
        reader = valid_user_id(user_id, request)
        wanted = FeedQuery.of(request).validated_data
        expands = wanted.pop("expand", None) is not None
        question = FeedQuestion(reader, **wanted)
        [page] = run(pages([question], deep=True), redis=cache.replies)
        assert page is not None
        _count([page])
        expanded = queries.posts_of(page.ids) if expands else None
        return to_response(_answer(question, page, expanded))
