"""A client's transport that sends what one turn of the event loop writes in one piece, behind it."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Corked"]

AT_ONCE = 65_536  # bytes: so many do not wait for the end of the turn


class Corked:
    """Around a transport, all else of which is as it was. uvloop sends each write at once: head and
    body of an answer would be two packets, and each of a batch's clients would be woken by itself."""

    __slots__ = ("_bytes", "_loop", "_written", "transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self._loop = loop
        self._written: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Kept until the turn ends or there is much of it."""
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(data)
        self._bytes += len(data)
        if self._bytes >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Send it now; nothing if the client has gone."""
        written, self._written, self._bytes = self._written, [], 0
        if written and not self.transport.is_closing():
            self.transport.write(b"".join(written))

    def close(self) -> None:
        """Behind what has been written."""
        self.flush()
        self.transport.close()
