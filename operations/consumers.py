"""/ops/ws: the answer of /ops/live, pushed every second to clients with a session of the staff."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from operations.live import Watcher, room
from operations.viewers import MayNot, NotKnown, Unasked
from restapi.sockets import PUSH, SocketRefused, UnknownMessage

__all__ = ["LivePage"]


class LivePage(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Sends {"now": HTML, "rest": HTML}, the parts of the page, and accepts no message. A browser sends the
    session cookie for a socket that any page opens, so the origin of the page must be this server."""

    _watcher: Watcher | None = None

    async def __call__(self, *scope_receive_send: Any) -> None:
        try:
            await super().__call__(*scope_receive_send)
        finally:  # always: `disconnect` is not called for a consumer that raised
            if self._watcher is not None:
                room().leave(self._watcher)

    async def connect(self) -> None:
        cookie = _header(self.scope, b"cookie")
        if not _is_ours(_header(self.scope, b"origin"), _header(self.scope, b"host")):
            raise SocketRefused(403, "This WebSocket is for the page /ops/ of this server.")
        try:
            permissions = await room().admit(cookie)
        except NotKnown:
            raise SocketRefused(401, "Log in at /admin/.") from None
        except MayNot as error:
            raise SocketRefused(403, str(error)) from None
        except Unasked:
            raise SocketRefused(
                503, "PostgreSQL is unavailable, so your login cannot be checked."
            ) from None
        await self.accept()
        self._watcher = Watcher(
            cookie=cookie,
            permissions=permissions,
            push=self.scope["extensions"][PUSH],
            close=self.close,
        )
        room().enter(self._watcher)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise UnknownMessage("This WebSocket accepts no messages.")


def _header(scope: Any, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _is_ours(origin: str, host: str) -> bool:
    """Whether the page comes from this server, or from an origin that the settings name."""
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()
