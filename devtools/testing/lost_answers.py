"""A proxy that passes a command on and loses its answer: it was applied, and the client cannot know."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from devtools.testing.weather import Proxy

__all__ = ["LosingProxy", "losing_answers"]


class LosingProxy(Proxy):
    """Breaks the connection behind what contains `words`, once it is done; `lost` counts."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.lost = 0
        self._words = b""
        self._times = 0

    def lose(self, words: bytes, *, times: int = 1) -> None:
        """What goes wrong next, and how often."""
        self._words, self._times, self.lost = words, times, 0

    def _breaks_at(self, data: bytes) -> bool:
        return self._times > self.lost and self._words in data

    def _break(self, server: socket.socket, data: bytes) -> None:
        server.sendall(data)
        assert server.recv(1 << 16)
        self.lost += 1


@contextmanager
def losing_answers(host: str, port: int) -> Iterator[LosingProxy]:
    """A proxy that is gone after the block."""
    proxy = LosingProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
