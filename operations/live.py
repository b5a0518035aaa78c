"""Pushes the page to its WebSockets: one snapshot a second per process, one frame per set of permissions.

Each frame holds the whole page. A frame that a slow client has no room for is dropped, and the next one
replaces it. Nothing runs while no socket is open.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TypeVar

import structlog
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, parse_cookie

from eventsite.web.socket_protocol import text_frame
from operations.observer import observer
from operations.pages import PERMISSIONS, live_parts
from operations.viewers import MayNot, NotKnown, Unasked, Viewer, viewer_of
from restapi.sockets import CloseCode, Push

__all__ = ["Room", "Watcher", "room", "viewer_with"]

EVERY_SECONDS = 1.0
ASKED_AGAIN_SECONDS = 10.0  # between two checks of a viewer's session and permissions
SLOW_SECONDS = 30.0  # a client that takes no frame for so long is disconnected

Result = TypeVar("Result")
Close = Callable[[int, str], Awaitable[None]]
log = structlog.get_logger("operations.live")


@dataclass(eq=False, slots=True)
class Watcher:
    """One socket. `cookie`: its Cookie header; `permissions`: those that change what the page shows."""

    cookie: str
    permissions: frozenset[str]
    push: Push
    close: Close
    asked_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)


def viewer_with(cookie: str) -> Viewer:
    """The viewer with this Cookie header. May ask PostgreSQL. Raises NotKnown, MayNot or Unasked."""
    request = HttpRequest()
    request.COOKIES = parse_cookie(cookie)
    store = import_module(settings.SESSION_ENGINE).SessionStore
    request.session = store(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    return viewer_of(request)


class Room:
    """All open sockets of one event loop, and the task that pushes to them."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        # A thread of its own: a server that hangs delays no request.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live")

    async def admit(self, cookie: str) -> frozenset[str]:
        """The permissions of the viewer with this Cookie header that change what the page shows. Raises like
        viewer_with."""
        viewer = await self._run(lambda: viewer_with(cookie))
        return frozenset(PERMISSIONS) & viewer.permissions

    def enter(self, watcher: Watcher) -> None:
        """Push to this watcher from now on."""
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep())

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    async def _keep(self) -> None:
        try:
            while self._watchers:
                begun = time.monotonic()
                try:
                    await self._round()
                except Exception:
                    log.exception("live_round_failed")
                await asyncio.sleep(max(0.1, EVERY_SECONDS - (time.monotonic() - begun)))
        finally:
            await self._run(connections.close_all)  # those of its thread

    async def _round(self) -> None:
        for watcher in [*self._watchers]:
            if time.monotonic() - watcher.asked_at > ASKED_AGAIN_SECONDS:
                await self._ask_again(watcher)
        wanted = {watcher.permissions for watcher in self._watchers}
        frames = await self._run(lambda: _frames(wanted))
        now = time.monotonic()
        for watcher in [*self._watchers]:
            frame = frames.get(watcher.permissions)
            if frame is None:
                continue
            if watcher.push(frame):
                watcher.heard_at = now
            elif now - watcher.heard_at > SLOW_SECONDS:
                self.leave(watcher)
                await watcher.close(CloseCode.TOO_SLOW, "The client reads too slowly.")

    async def _ask_again(self, watcher: Watcher) -> None:
        watcher.asked_at = time.monotonic()
        try:
            watcher.permissions = await self.admit(watcher.cookie)
        except (NotKnown, MayNot):
            self.leave(watcher)
            await watcher.close(
                CloseCode.KEY_REVOKED,
                "The session has ended or lost its permissions. Log in again.",
            )
        except Unasked:
            # While PostgreSQL is unavailable, the page is read-only.
            watcher.permissions = frozenset()

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _frames(wanted: Iterable[frozenset[str]]) -> Mapping[frozenset[str], bytes]:
    snapshot = observer().look(wait=0.0)
    return {
        permissions: text_frame(json.dumps(live_parts(snapshot, permissions)).encode())
        for permissions in wanted
    }


@cache
def room() -> Room:
    """The room of this process."""
    return Room()
