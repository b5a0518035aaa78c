"""Answers what it is sure of before Django; everything else goes to Django unchanged.

Sure means: the exact method and path, a plain JSON body, no header that would change the answer,
and a body that the app's own validation takes. Whatever is odd gets its canonical answer there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import close_old_connections

from eventsite.gateway.asgi_types import Application, Receive, Scope, Send
from eventsite.hot_paths.coalescer import Coalescer, Refused
from outbox.services import NotStored, OutcomeUnknown
from restapi.answers import Answer, json_answer
from restapi.errors import unavailable
from restapi.hot_path import HotPath
from restapi.idempotency import Keyed, key_of_headers
from restapi.json import parse_json

__all__ = ["HotPaths"]

# Headers that change what Django would answer, or that it may one day look at.
_UNSURE = frozenset({b"content-encoding", b"x-http-method-override", b"expect", b"range"})
_JSON = b"application/json"


class HotPaths:
    """The layer between the gateway and Django; the gateway has read and bounded the body.

    `headers`: what Django's middleware adds to every answer.
    """

    def __init__(
        self,
        django: Application,
        paths: Sequence[HotPath[Any, Any]],
        *,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._django = django
        self._headers = [(b"content-type", _JSON), *headers]
        self._paths = {(path.method, path.path): path for path in paths}
        self._coalescers: dict[str, Coalescer[Any, Any]] = {}
        self._running: set[str] = set()  # ids of idempotency keys that wait or are being stored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._paths.get((scope["method"], scope["path"]))
        if path is None or not _is_plain(scope):
            await self._django(scope, receive, send)
            return
        message = await receive()

        async def again() -> Any:
            return message

        body = message["body"]
        try:
            command = path.read(parse_json(body))
            key = key_of_headers(scope["headers"], endpoint=path.endpoint, body=body)
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            await self._django(scope, again, send)
            return
        if key is not None and key.id in self._running:
            # It would wait in the queue for the first one. Django looks it up on a connection of
            # its own and tells at once: done, or still running.
            await self._django(scope, again, send)
            return
        try:
            answer = await self._submit(path, Keyed(command, key))
        except (NotStored, OutcomeUnknown) as error:
            scope["route"] = path.route
            status, value, extra = unavailable(error)
            await self._send(send, json_answer(status, value, tuple(extra)))
        except Refused:
            await self._django(scope, again, send)
        else:
            scope["route"] = path.route
            await self._send(send, answer)

    async def close(self) -> None:
        """Store what has been accepted; for the end of the process."""
        for coalescer in self._coalescers.values():
            await coalescer.close()

    async def _submit(self, path: HotPath[Any, Any], request: Keyed[Any]) -> Answer:
        coalescer: Coalescer[Keyed[Any], Answer] = self._coalescer(path)
        if request.key is None:
            return await coalescer.submit(request)
        self._running.add(request.key.id)
        try:
            return await coalescer.submit(request)
        finally:
            self._running.discard(request.key.id)

    def _coalescer(self, path: HotPath[Any, Any]) -> Coalescer[Any, Any]:
        """Made at the first request, inside the event loop it belongs to."""
        if path.route not in self._coalescers:
            self._coalescers[path.route] = Coalescer(_on_a_live_connection(path), name=path.route)
        return self._coalescers[path.route]

    async def _send(self, send: Send, answer: Answer) -> None:
        length = (b"content-length", str(len(answer.body)).encode())
        headers = [*self._headers, length, *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _is_plain(scope: Scope) -> bool:
    if scope["query_string"]:
        return False
    content_type = None
    for name, value in scope["headers"]:
        if name in _UNSURE:
            return False
        if name == b"content-type":
            content_type = value
    return content_type == _JSON


def _on_a_live_connection(path: HotPath[Any, Any]) -> Any:
    def perform(commands: Sequence[Any]) -> Sequence[Any]:
        close_old_connections()  # what Django does around a request
        try:
            return path.perform(commands)
        finally:
            close_old_connections()

    return perform
