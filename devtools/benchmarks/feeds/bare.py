"""The barest server that does the same: no gateway, no validation, no Django on the way.

manage.py run_web --application devtools.benchmarks.feeds.bare:application. The same SQL and the same
scripts of Redis, sent alike and coalesced alike: POST /posts, and GET /feeds/{user} of cached feeds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import django
import msgspec
from redis import asyncio as redis_asyncio

from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.hot_paths.wire import Wire
from outbox.database.arrays import array_literal, text_array_literal
from outbox.topics import lane_of

django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402

from devtools.benchmarks.hot_paths.bare import BEGIN, COMMIT, Lane  # noqa: E402
from feeds.cache import Kept, look  # noqa: E402
from feeds.events import event_uuid  # noqa: E402
from feeds.reading.changes import Changes  # noqa: E402
from feeds.reading.statements import (  # noqa: E402
    NEWEST,
    OfAuthor,
    Range,
    of_authors,
    of_authors_statement,
    sources_of,
    sources_statement,
)
from feeds.services import INSERT_POSTS  # noqa: E402
from outbox.publish.events import INSERT_EVENTS  # noqa: E402

LIMIT = 20
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_numbers = itertools.count()
_changes = Changes()
_lanes: dict[str, Lane] = {}
_redis: list[redis_asyncio.Redis] = []


async def post(wire: Wire, bodies: Sequence[Any]) -> list[bytes]:
    """One round trip."""
    now = time.time()
    ids = [(int(now * 1000) - 1767225600000 << 22) + 2 * next(_numbers) for _ in bodies]
    events = [
        f'{{"type":"POST_CREATED","event_id":{id_},"event_id_str":"{id_}","actor_id":"{body["author_id"]}",'
        f'"payload":{{"post_id":{id_},"content":"{body["content"]}"}},"timestamp":{int(now)}}}'
        for id_, body in zip(ids, bodies, strict=True)
    ]
    authors = [body["author_id"] for body in bodies]
    insertion = (
        array_literal(ids),
        text_array_literal(authors),
        text_array_literal([body["content"] for body in bodies]),
    )
    outbox = (
        array_literal([event_uuid(id_, "000000000001") for id_ in ids]),
        array_literal([lane_of(author) for author in authors]),
        text_array_literal(["feed-events"] * len(ids)),
        text_array_literal(authors),
        text_array_literal(["POST_CREATED"] * len(ids)),
        text_array_literal(["/feeds"] * len(ids)),
        text_array_literal(events),
        text_array_literal([""] * len(ids)),
        text_array_literal([""] * len(ids)),
    )
    await wire.trip([BEGIN, (INSERT_POSTS, insertion), (INSERT_EVENTS, outbox), COMMIT])
    return [b'{"post_id":%d,"post_id_str":"%d"}' % (id_, id_) for id_ in ids]


async def cached(wire: Wire, readers: Sequence[str]) -> list[bytes]:
    """One round trip to Redis, one to PostgreSQL; what is not cached is not answered."""
    if not _redis:
        _redis.append(redis_asyncio.Redis.from_url(settings.FEED_CACHE_URL))
    values = await _redis[0].execute_command(*look(readers))  # type: ignore[no-untyped-call]
    feeds = [Kept.of(value) for value in values]
    asked = list(
        {OfAuthor(each, NEWEST, LIMIT + 1): None for feed in feeds for each in feed.merged}
    )
    news, posts = await wire.trip([_changes.statement(), of_authors_statement(asked)])
    _changes.learn(news)
    merged = of_authors(posts, asked)
    return [
        _words(
            reader,
            {*feed.ids}.union(*(merged[each, NEWEST, LIMIT + 1] for each in feed.merged))  # type: ignore[index]
            - _changes.deleted,
        )
        for reader, feed in zip(readers, feeds, strict=True)
    ]


async def read(wire: Wire, readers: Sequence[str]) -> list[bytes]:
    """One round trip to PostgreSQL."""
    asked = {Range(reader, NEWEST): (LIMIT + 1, LIMIT + 1) for reader in readers}
    [rows] = await wire.trip([sources_statement(asked)])
    found = sources_of(rows, asked)
    answers = []
    for reader in readers:
        source = found[Range(reader, NEWEST)]
        answers.append(_words(reader, {*source.stored, *source.merged}))
    return answers


def _words(reader: str, ids: set[int]) -> bytes:
    shown = sorted(ids, reverse=True)[: LIMIT + 1]
    page = shown[:LIMIT]
    return _encode(
        {
            "user_id": reader,
            "post_ids": page,
            "post_ids_str": list(map(str, page)),
            "next_before": page[-1] if len(shown) > LIMIT else None,
        }
    )


_PERFORM = {"/posts": post, "cached": cached, "read": read}


def _lane(name: str) -> Lane:
    if name not in _lanes:
        _lanes[name] = Lane(_PERFORM[name])
    return _lanes[name]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI."""
    if scope["type"] != "http":
        return
    message, path = await receive(), scope["path"]
    if path == "/health":
        answer = b'{"status":"alive"}'
    elif scope["method"] == "POST":
        answer = await _lane("/posts").submit(_decode(message["body"]))
    else:
        name = "cached" if settings.FEED_CACHE_FEEDS else "read"
        answer = await _lane(name).submit(path[7:])
    length = (b"content-length", str(len(answer)).encode())
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
