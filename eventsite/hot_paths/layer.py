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
from restapi.errors import unavailable
from restapi.hot_path import HotPath
from restapi.json import JSONRenderer, parse_json

__all__ = ["HotPaths"]

# Headers that change what Django would answer, or that it may one day look at.
_UNSURE = frozenset(
    {b"content-encoding", b"idempotency-key", b"x-http-method-override", b"expect", b"range"}
)
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._paths.get((scope["method"], scope["path"]))
        if path is None or not _is_plain(scope):
            await self._django(scope, receive, send)
            return
        message = await receive()

        async def again() -> Any:
            return message

        try:
            command = path.read(parse_json(message["body"]))
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            await self._django(scope, again, send)
            return
        try:
            result = await self._coalescer(path).submit(command)
        except (NotStored, OutcomeUnknown) as error:
            scope["route"] = path.route
            status, body, extra = unavailable(error)
            await self._send(send, status, body, extra)
        except Refused:
            await self._django(scope, again, send)
        else:
            scope["route"] = path.route
            await self._send(send, *path.answer(command, result))

    async def close(self) -> None:
        """Store what has been accepted; for the end of the process."""
        for coalescer in self._coalescers.values():
            await coalescer.close()

    def _coalescer(self, path: HotPath[Any, Any]) -> Coalescer[Any, Any]:
        """Made at the first request, inside the event loop it belongs to."""
        if path.route not in self._coalescers:
            self._coalescers[path.route] = Coalescer(_on_a_live_connection(path), name=path.route)
        return self._coalescers[path.route]

    async def _send(
        self,
        send: Send,
        status: int,
        body: dict[str, Any],
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        encoded = JSONRenderer().render(body)
        length = (b"content-length", str(len(encoded)).encode())
        headers = [*self._headers, length, *extra]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})


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
