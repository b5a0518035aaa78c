"""A client of the status stream that never gives up: cut off, it comes back with the last number it saw."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Self

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from devtools.chaos.notifications.history import SeenChange

__all__ = ["StatusStream"]

LOOK_SECONDS = 0.2
AGAIN_SECONDS = 0.2
OPEN_SECONDS = 10.0


class StatusStream:
    """Follows every change of a status until the end of the block.

    changes  in the order in which they came
    gaps     messages that changes are not kept
    last     the highest number seen; None: it was not open yet
    """

    def __init__(self, base_url: str) -> None:
        self.changes: list[SeenChange] = []
        self.gaps = 0
        self.last: int | None = None
        self._wall = time.time() - time.monotonic()
        self._url = f"{base_url.replace('http', 'ws', 1)}/ws"
        self._ends = threading.Event()
        self._away = threading.Event()
        self._is_away = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="status-stream")

    def __enter__(self) -> Self:
        self._thread.start()
        give_up = time.monotonic() + OPEN_SECONDS
        while self.last is None and time.monotonic() < give_up:
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._away.clear()
        self._thread.join()

    def statuses(self) -> dict[str, str]:
        """The last one of each notification so far."""
        return {change.id: change.status for change in list(self.changes)}

    @contextmanager
    def away(self) -> Iterator[None]:
        """Not connected until the end of the block; then it comes back."""
        self._is_away.clear()
        self._away.set()
        self._is_away.wait()
        try:
            yield
        finally:
            self._away.clear()

    def _run(self) -> None:
        while not self._ends.is_set():
            since = "" if self.last is None else f"?since={self.last}"
            try:
                # Without a bound of its queue it reads on, whatever the checker is at.
                with connect(
                    self._url + since, proxy=None, max_size=None, max_queue=None
                ) as client:
                    self._follow(client)
            except (OSError, WebSocketException, TimeoutError):
                self._ends.wait(AGAIN_SECONDS)
            if self._away.is_set():
                self._is_away.set()
            while self._away.is_set():
                time.sleep(0.02)

    def _follow(self, client: ClientConnection) -> None:
        while not self._ends.is_set() and not self._away.is_set():
            try:
                message = json.loads(client.recv(timeout=LOOK_SECONDS))
            except TimeoutError:
                continue
            match message.get("type"):
                case "open":
                    self.last = message["seq"] if self.last is None else self.last
                case "gap":
                    self.gaps += 1
                case _:
                    at = datetime.fromisoformat(message["timestamp"]).timestamp() - self._wall
                    self.changes.append(
                        SeenChange(
                            message["seq"], message["notification_id"], message["status"], at
                        )
                    )
                    self.last = message["seq"]
