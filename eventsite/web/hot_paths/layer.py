"""Answers requests that qualify before Django; all others go to Django unchanged
(docs/http.md#hot-paths says which)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.http import HttpRequest
from django.urls import Resolver404, ResolverMatch, resolve

from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.web.hot_paths.endpoints import Endpoint, endpoint_of
from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.hot_paths.table import ID, Table
from restapi.hot_path import AnyHotPath, Asked, HotConstant
from restapi.hot_query import parsed_query

__all__ = ["HotPaths"]

# Headers that change what Django would answer, or that it may one day look at.
_UNSURE = frozenset(
    {
        b"content-encoding",
        b"cookie",  # a malformed csrftoken is answered with a new one
        b"expect",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-unmodified-since",
        b"range",
        b"x-http-method-override",
    }
)
_JSON = b"application/json"
_ODD = b"?"
_NONE_GIVEN: Mapping[str, Any] = {}
# One of them is taken by each of Django's path converters.
_IDS_OF_ANY_KIND = ("00000000-0000-0000-0000-000000000000", "0", "any")

Headers = list[tuple[bytes, bytes]]


class HotPaths:
    """The layer between the gateway and Django; the gateway has read and bounded the body.

    `headers`: what Django's middleware adds to every answer. `sessions`: with PostgreSQL, that all
    reads share, and as many for all writes. Raises ValueError for a path that could not be served
    as it is declared.
    """

    def __init__(
        self,
        django: Application,
        paths: Sequence[AnyHotPath],
        *,
        headers: Sequence[tuple[bytes, bytes]],
        sessions: int = 2,
    ) -> None:
        self._django = django
        self._reads, self._writes = SessionPool(sessions), SessionPool(sessions)
        self._table: Table[tuple[Endpoint, Headers]] = Table()
        for path in paths:
            endpoint = endpoint_of(path, reads=self._reads, writes=self._writes)
            ids = None if isinstance(path, HotConstant) else path.id
            always = [(b"content-type", _JSON), (b"allow", _allowed(path)), *headers]
            self._table.add(endpoint.method, path.path, ids, (endpoint, always))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._table.find(scope["method"], scope["path"])
        if found is None:
            await self._django(scope, receive, send)
            return
        (endpoint, always), id_ = found
        query = scope["query_string"]
        given = parsed_query(query, endpoint.parameters) if query else _NONE_GIVEN
        kind = _content_type(scope)
        if given is None or kind == _ODD:
            await self._django(scope, receive, send)
            return
        message = await receive()
        body = message["body"]
        answer = None
        if not endpoint.takes_body or kind == _JSON or not (kind or body):
            answer = await endpoint.answer(scope, Asked(id_, given, body))
        if answer is None:

            async def again() -> Message:
                return message

            await self._django(scope, again, send)
            return
        scope["route"] = endpoint.route
        length = (b"content-length", str(len(answer.body)).encode())
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*always, length, *answer.headers],
        }
        await send(start)
        await send({"type": "http.response.body", "body": answer.body})

    async def close(self) -> None:
        """Store what has been accepted; for the end of the process."""
        await asyncio.gather(*(endpoint.close() for endpoint, _ in self._table.all()))
        for pool in (self._reads, self._writes):
            await pool.close()


def _content_type(scope: Scope) -> bytes:
    """As it is given; b"" without one; _ODD if a header could change what Django answers."""
    content_type: bytes | None = None
    for name, value in scope["headers"]:
        if name in _UNSURE:
            return _ODD
        if name == b"content-type":
            if content_type is not None:
                return _ODD
            content_type = value or _ODD
    return content_type or b""


def _resolved(path: AnyHotPath) -> ResolverMatch:
    for id_ in _IDS_OF_ANY_KIND:
        with suppress(Resolver404):
            return resolve(path.path.replace(ID, id_))
    raise ValueError(f"{path.path}: Django has no such path")


def _allowed(path: AnyHotPath) -> bytes:
    """The Allow header that Django REST framework gives to every answer of a view."""
    view = _resolved(path).func.cls()  # type: ignore[attr-defined]
    view.setup(HttpRequest())  # a view that answers GET answers HEAD
    return ", ".join(view.allowed_methods).encode()
