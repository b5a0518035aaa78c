"""Answers what it is sure of before Django; everything else goes to Django unchanged.

Sure means: the exact method and path, no query string, no header that would change the answer,
and for a write a plain JSON body that the app's own validation takes. Whatever is odd gets its
canonical answer there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress

from django.http import HttpRequest
from django.urls import Resolver404, ResolverMatch, resolve

from eventsite.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.hot_paths.endpoints import Endpoint, endpoint_of
from restapi.hot_path import AnyHotPath, HotRead

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
_ID = "{id}"
# One of them is taken by each of Django's path converters.
_IDS_OF_ANY_KIND = ("00000000-0000-0000-0000-000000000000", "0", "any")

Headers = list[tuple[bytes, bytes]]


class HotPaths:
    """The layer between the gateway and Django; the gateway has read and bounded the body.

    `headers`: what Django's middleware adds to every answer. Raises ValueError for a path that
    could not be served as it is declared.
    """

    def __init__(
        self,
        django: Application,
        paths: Sequence[AnyHotPath],
        *,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._django = django
        self._exact: dict[tuple[str, str], tuple[Endpoint, Headers]] = {}
        self._with_id: dict[tuple[str, str], tuple[re.Pattern[str], Endpoint, Headers]] = {}
        for path in paths:
            endpoint = endpoint_of(path)
            head, _, last = path.path.rpartition("/")
            ids = path.id if isinstance(path, HotRead) and last == _ID else None
            if "{" in (path.path if ids is None else head):
                raise ValueError(f"{path.path}: only the last segment of a HotRead can be {_ID}")
            always = [(b"content-type", _JSON), (b"allow", _allowed(path)), *headers]
            if ids is None:
                self._exact[endpoint.method, path.path] = endpoint, always
            else:
                self._with_id[endpoint.method, head] = ids, endpoint, always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        wanted = ""
        found = self._exact.get((scope["method"], path))
        if found is None:
            head, _, wanted = path.rpartition("/")
            known = self._with_id.get((scope["method"], head))
            if known is not None and known[0].fullmatch(wanted):
                found = known[1:]
        if found is None or scope["query_string"] or not _is_plain(scope, found[0]):
            await self._django(scope, receive, send)
            return
        endpoint, always = found
        message = await receive()
        answer = await endpoint.answer(scope, wanted, message["body"])
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
        endpoints = [*self._exact.values(), *(known[1:] for known in self._with_id.values())]
        await asyncio.gather(*(endpoint.close() for endpoint, _ in endpoints))


def _is_plain(scope: Scope, endpoint: Endpoint) -> bool:
    content_type = None
    for name, value in scope["headers"]:
        if name in _UNSURE:
            return False
        if name == b"content-type":
            if content_type is not None:
                return False
            content_type = value
    return content_type == _JSON or not endpoint.takes_body


def _resolved(path: AnyHotPath) -> ResolverMatch:
    for id_ in _IDS_OF_ANY_KIND:
        with suppress(Resolver404):
            return resolve(path.path.replace(_ID, id_))
    raise ValueError(f"{path.path}: Django knows no such path")


def _allowed(path: AnyHotPath) -> bytes:
    """The Allow header that Django REST framework gives to every answer of a view."""
    view = _resolved(path).func.cls()  # type: ignore[attr-defined]
    view.setup(HttpRequest())  # a view that answers GET answers HEAD
    return ", ".join(view.allowed_methods).encode()
