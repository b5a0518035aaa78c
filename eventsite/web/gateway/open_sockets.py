"""The open WebSockets of this process: how many a caller has, and whom to close."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Protocol

import structlog

from eventsite.web.gateway.keyring import Keyring
from eventsite.web.gateway.refusals import RETRY, Refused
from restapi.sockets import CloseCode

__all__ = ["Closable", "OpenSockets"]

# Seconds. A revoked key is noticed by a look and closed by the next but one, within a second.
LOOKS_EVERY = 0.2

log = structlog.get_logger("gateway")


class Closable(Protocol):
    """What this asks of a socket. `bounded_as`: whose limit counts it; `sha256`: of its key, None
    for none; `needs`: the scope that the key must have, "" for any."""

    bounded_as: str
    sha256: bytes | None
    needs: str

    @property
    def is_open(self) -> bool: ...

    async def close(self, code: int, reason: str) -> None: ...


class OpenSockets:
    """Belongs to one event loop. One task looks after all of them, and there is none without.

    at_most       sockets of a caller in this process; 0: as many as he likes
    send_seconds  that a client may keep a message waiting
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        at_most: int,
        send_seconds: float,
    ) -> None:
        self._keyring = keyring
        self._at_most = at_most
        self._send_seconds = send_seconds
        self._of_callers: Counter[str] = Counter()
        self._by_key: dict[bytes, set[Closable]] = {}
        self._sending: dict[Closable, float] = {}  # since when
        self._watcher: asyncio.Task[None] | None = None

    def enter(self, socket: Closable) -> None:
        """Before it is accepted, so that no two take the last place. Raises Refused (429)."""
        if self._at_most and self._of_callers[socket.bounded_as] >= self._at_most:
            message = f"Too many open WebSockets: the limit is {self._at_most} for each caller."
            raise Refused(429, message, RETRY)
        self._of_callers[socket.bounded_as] += 1
        if socket.sha256 is not None:
            self._by_key.setdefault(socket.sha256, set()).add(socket)
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def leave(self, socket: Closable) -> None:
        """Of one that has entered."""
        self._of_callers[socket.bounded_as] -= 1
        if not self._of_callers[socket.bounded_as]:
            del self._of_callers[socket.bounded_as]
        if socket.sha256 is not None and socket.sha256 in self._by_key:
            self._by_key[socket.sha256].discard(socket)
            if not self._by_key[socket.sha256]:
                del self._by_key[socket.sha256]

    def begin_send(self, socket: Closable) -> None:
        """From now on, whatever was said before: a message that waits longer than it may closes
        the socket."""
        self._sending[socket] = time.monotonic()

    def end_send(self, socket: Closable) -> None:
        self._sending.pop(socket, None)

    async def close(self) -> None:
        """For the end of the process."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while self._of_callers:
            try:
                await self._close_slow()
                await self._close_revoked()
            except Exception:  # whatever it was, the next look may do better
                log.exception("websockets_not_looked_after")
            await asyncio.sleep(LOOKS_EVERY)
        self._watcher = None

    async def _close_slow(self) -> None:
        slow_since = time.monotonic() - self._send_seconds
        for socket in [each for each, since in self._sending.items() if since < slow_since]:
            self._sending.pop(socket, None)
            reason = f"The client reads too slowly: a message waited {self._send_seconds:g} s."
            await socket.close(CloseCode.TOO_SLOW, reason)

    async def _close_revoked(self) -> None:
        if not self._by_key:
            return
        living = await self._keyring.living(self._by_key)
        for sha256, sockets in list(self._by_key.items()):
            key = living.get(sha256)
            for socket in list(sockets):
                if not socket.is_open:  # not yet: it will be looked at again; or not any more
                    continue
                if key is None:
                    reason = "The API key was revoked or has expired."
                elif socket.needs and socket.needs not in key.scopes:
                    reason = f"The API key has no scope {socket.needs}."
                else:
                    continue
                await socket.close(CloseCode.KEY_REVOKED, reason)
