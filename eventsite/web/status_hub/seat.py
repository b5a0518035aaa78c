"""One socket in the hub: what waits for it, and how it comes to what its client has missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec
import psycopg
import structlog

from eventsite.web.status_hub.outgoing import Outgoing, encoded
from eventsite.web.status_hub.pages import LoggedChange
from restapi.sockets import CloseCode, Push

__all__ = ["QUEUE", "QueuePlace", "Reader", "SendLine", "Start"]

QUEUE = 500  # messages of one socket that wait here; the server under it buffers 64 KiB more
AGAIN_AFTER = 0.5  # seconds, when what a client has missed could not be read

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Close = Callable[[int, str], Awaitable[None]]

log = structlog.get_logger("status_hub")


class SendLine(NamedTuple):
    """The way to the client of a socket."""

    send: Send
    push: Push
    close: Close


class Start(msgspec.Struct, frozen=True):
    """Where a socket begins. `after`: everything with a higher number follows, None: from now on;
    `oldest`: what its gap message says, None: it has missed nothing."""

    after: int | None
    oldest: int | None = None


class Reader(Protocol):
    """What a place asks of the reader of its log."""

    last: int

    async def missed(self, after: int) -> tuple[Sequence[LoggedChange], int]:
        """Changes above `after`, in order, and the number up to which these are all."""

    def wants(self, place: QueuePlace, change: LoggedChange) -> bool: ...
    def set_live(self, place: QueuePlace) -> None: ...
    def forget(self, place: QueuePlace) -> None: ...
    def note_cut_off(self) -> None: ...
    def keep(self, task: asyncio.Task[None]) -> None: ...


class QueuePlace:
    """The seat of one socket. What its client has room for is written at once; what it has not is sent by
    a task, in order, and there is none while nothing waits: thousands of sockets are idle most of the time."""

    __slots__ = ("_left", "_line", "_push", "_queue", "_reader", "_sender", "_start", "subject")

    def __init__(self, reader: Reader, subject: Hashable, start: Start, line: SendLine) -> None:
        self.subject = subject
        self._reader = reader
        self._start = start
        self._line = line
        self._push = line.push
        self._queue: deque[Outgoing] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._left = False

    def begin(self) -> None:
        """Once, when the socket is accepted."""
        if self._left:
            return
        if self._start.after is None:
            self._set_live()
            self.put(encoded({"type": "open", "seq": self._reader.last}))
        else:
            self._run(self._catch_up(self._start.after, self._start.oldest))

    def leave(self) -> None:
        """Nothing is sent from now on."""
        if not self._left:
            self._left = True
            self._queue = None
            self._reader.forget(self)

    def put(self, outgoing: Outgoing) -> None:
        """Send it behind what waits already. A queue that is full is the end of the socket: to drop
        one message of it would be a gap that its client does not notice."""
        if self._left:
            return
        if self._sender is None and self._push(outgoing.frame):
            return
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= QUEUE:
            self._reader.note_cut_off()
            self._end(CloseCode.TOO_SLOW, f"The client reads too slowly: {QUEUE} messages wait.")
            return
        self._queue.append(outgoing)
        if self._sender is None:
            self._sender = self._run(self._send_queue())

    def _run(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._guarded(work))
        self._reader.keep(task)
        return task

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            log.exception("status_feed_failed")
            self._end(CloseCode.OUR_FAULT, "")

    async def _send_queue(self) -> None:
        while self._queue:
            await self._line.send(self._queue.popleft().message)
        self._queue = None
        self._sender = None

    async def _catch_up(self, after: int, oldest: int | None) -> None:
        """What the client has missed, as fast as it reads; then it is live. Between the last look at
        the reader's number and `set_live` nothing else runs, so the reader neither hands it a change
        that was sent here nor passes it by with one that was not."""
        if oldest is not None:
            await self._say({"type": "gap", "oldest": oldest})
        await self._say({"type": "open", "seq": after})
        while not self._left and after < self._reader.last:
            try:
                changes, end = await self._reader.missed(after)
            except psycopg.Error:  # the reader logs that it cannot be read
                await asyncio.sleep(AGAIN_AFTER)
                continue
            for change in changes:
                if not self._left and self._reader.wants(self, change):
                    await self._line.send(change.outgoing.message)
            after = end
            await asyncio.sleep(0)  # pages in memory, to a client that reads quickly: let others on
        if after > self._reader.last:  # the log went back meanwhile
            await self._say({"type": "gap", "oldest": self._reader.last + 1})
        self._set_live()

    async def _say(self, message: Mapping[str, Any]) -> None:
        await self._line.send(encoded(message).message)

    def _set_live(self) -> None:
        if not self._left:
            self._reader.set_live(self)

    def _end(self, code: int, reason: str) -> None:
        if not self._left:
            self.leave()
            self._reader.keep(asyncio.get_running_loop().create_task(self._closed(code, reason)))

    async def _closed(self, code: int, reason: str) -> None:
        with suppress(Exception):  # whatever it is, the socket gets nothing more
            await self._line.close(code, reason)
