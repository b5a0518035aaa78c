"""Ports of 127.0.0.1 that nobody uses, remembered so that they survive a restart."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from pathlib import Path
from typing import ClassVar

from devtools.localstack.errors import LocalStackError

__all__ = ["Ports", "is_free"]

# Below the range from which Linux takes ports of outgoing connections: a client that keeps
# calling a server which is down would otherwise connect to itself there and block its restart.
LOWEST, HIGHEST = 15000, 32000
# Stacks started at the same moment begin their search in blocks of their own.
BLOCK = 20


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Ports:
    """Hands out one port a name: the one asked for, else the one of last time, else any free one."""

    _given: ClassVar[set[int]] = set()  # by any stack of this process
    _lock = threading.Lock()

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            remembered = json.loads(memory.read_text())
        except (OSError, ValueError):
            remembered = {}
        self._ports: dict[str, int] = {str(name): int(port) for name, port in remembered.items()}

    def choose(self, name: str, wanted: int | None = None, variable: str = "") -> int:
        """The port of `name`. Raises LocalStackError when `wanted` (from `variable`) is taken."""
        if wanted is not None and not is_free(wanted):
            raise LocalStackError(f"Port {wanted} is taken. Set {variable}= to a free port.")
        with self._lock:
            port = wanted or self._remembered(name) or self._any()
            self._given.add(port)
            self._ports[name] = port
            self._memory.write_text(json.dumps(self._ports, indent=1))
        return port

    def _remembered(self, name: str) -> int | None:
        port = self._ports.get(name)
        return port if port and is_free(port) else None

    def _any(self) -> int:
        span = HIGHEST - LOWEST
        start = os.getpid() * BLOCK % span
        taken = self._given | set(self._ports.values())
        for step in itertools.islice(itertools.count(), span):
            port = LOWEST + (start + step) % span
            if port not in taken and is_free(port):
                return port
        raise LocalStackError(f"No free port between {LOWEST} and {HIGHEST}.")
