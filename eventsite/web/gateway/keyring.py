"""The API keys in this process's memory, never older than a second while they are asked for.

All keys are kept, and what changed is asked for by revision: a flood of made-up keys costs neither
memory nor more than MISSES_A_SECOND small queries. While the database is unavailable, known keys stay
valid (docs/http.md#api-keys)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog
from django.db import close_old_connections

from apikeys import queries, services
from apikeys.queries import KeyState
from eventsite.web.futures import tell
from eventsite.web.gateway import metrics
from outbox.database import patience

__all__ = ["Keyring", "KeysUnread"]

FRESH = 0.4  # seconds: older, and the next request has them read behind its back
OLDEST = 0.9  # seconds: older, and a request waits until they are read
PATIENCE = 1.0  # seconds that a request waits for a database that does not answer
READ_SECONDS = 5.0  # that the thread waits for each answer of the database
AGAIN_AFTER = 0.5  # seconds after a failed read in which nobody waits for the next one
MISSES_A_SECOND = 10
WHOLE_EVERY = 60.0  # seconds: reads all, in case a row was deleted by SQL
NOTED_EVERY = 600.0  # seconds between two notes that a key is used

log = structlog.get_logger("gateway")


class KeysUnread(Exception):
    """Whether the key is known cannot be said: the database is unavailable."""


def read_keys(revision: int, used: Collection[int]) -> list[KeyState]:
    """What changed after `revision`; on the keyring's own thread and connection."""
    with patience.within(each=READ_SECONDS):
        close_old_connections()
        try:
            if used:
                services.note_use(used)
            return queries.changed_since(revision)
        finally:
            close_old_connections()


class Keyring:
    """Belongs to one event loop; `read` runs on a thread of its own, one call at a time."""

    def __init__(
        self,
        read: Callable[[int, Collection[int]], Sequence[KeyState]] = read_keys,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
        misses_a_second: float = MISSES_A_SECOND,
    ) -> None:
        self._read = read
        self._clock = clock
        self._patience = patience
        self._pause = 1 / misses_a_second
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api-keys")
        self._keys: dict[bytes, KeyState] = {}
        self._revision = 0
        self._as_of = float("-inf")  # all that was committed before is known
        self._whole_at = float("-inf")
        self._lost_before = False
        self._away_until = float("-inf")
        self._began = float("-inf")
        self._reading = False
        self._next: asyncio.Future[None] | None = None  # the end of a read that has not begun
        self._reader: asyncio.Task[None] | None = None
        self._noted: dict[int, float] = {}
        self._used: set[int] = set()

    def recall(self, sha256: bytes) -> KeyState | None:
        """The live key with this hash if that can be said at once, which is nearly always; None
        says nothing, `find` does."""
        return None if self._clock() - self._as_of > FRESH else self._living(sha256)

    async def find(self, sha256: bytes) -> KeyState | None:
        """The live key with this hash. Raises KeysUnread if it is not known and the database is
        away."""
        age = await self._refresh()
        if sha256 not in self._keys and age <= OLDEST:  # it may have been made a moment ago
            await self._wait(self._soon())
        if sha256 not in self._keys and self._is_away():
            raise KeysUnread
        return self._living(sha256)

    async def living(self, hashes: Iterable[bytes]) -> dict[bytes, KeyState]:
        """Of keys that have been found before, those that still live; to be asked several times a
        second. While the database is unavailable a key lives until it expires."""
        await self._refresh()
        found = {sha256: self._living(sha256) for sha256 in hashes}
        return {sha256: key for sha256, key in found.items() if key}

    async def close(self) -> None:
        """Stop reading; for the end of the process."""
        if self._reader is not None:
            self._reader.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _living(self, sha256: bytes) -> KeyState | None:
        """The key in memory, which is used now, if it has not expired."""
        key = self._keys.get(sha256)
        if key is None or key.expires <= time.time():
            return None
        now = self._clock()
        if now - self._noted.get(key.id, float("-inf")) > NOTED_EVERY:
            self._noted[key.id] = now
            self._used.add(key.id)
            self._soon()
        return key

    async def _refresh(self) -> float:
        """Have them read if it is time; their age in seconds before that."""
        age = self._clock() - self._as_of
        if age > OLDEST:
            await self._wait(self._soon())
        elif age > FRESH:
            self._soon()
        return age

    async def _wait(self, read: asyncio.Future[None]) -> None:
        """Not when the last read has failed or hangs: then what is in memory counts."""
        if not self._is_away():
            await asyncio.shield(read)  # who hangs up does not end it for the others

    def _is_away(self) -> bool:
        now = self._clock()
        return now < self._away_until or (self._reading and now - self._began > self._patience)

    def _soon(self) -> asyncio.Future[None]:
        """The end of a read that begins after now; shared by all who ask meanwhile."""
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            if self._reader is None:
                self._reader = loop.create_task(self._read_while_wanted())
        return self._next

    async def _read_while_wanted(self) -> None:
        loop = asyncio.get_running_loop()
        while self._next is not None:
            pause = self._began + self._pause - self._clock()
            if pause > 0:
                await asyncio.sleep(pause)
            waiting, self._next = self._next, None
            self._began = began = self._clock()
            whole = began - self._whole_at > WHOLE_EVERY
            used, self._used = self._used, set()
            self._reading = True
            patience = loop.call_later(self._patience, self._give_up, waiting)
            try:
                changed = await loop.run_in_executor(
                    self._thread, self._read, 0 if whole else self._revision, used
                )
            except Exception as error:  # noqa: BLE001  (whatever it is, known keys stay valid)
                self._used |= used
                self._whole_at = float("-inf")  # it may come back as another database
                self._lost(str(error))
            else:
                self._take(changed, whole=whole)
                self._as_of = began
                self._whole_at = began if whole else self._whole_at
                self._found()
            patience.cancel()
            self._reading = False
            tell(waiting, None)
        self._reader = None

    def _give_up(self, waiting: asyncio.Future[None]) -> None:
        """The read hangs: nobody waits for it any longer, nor for the one behind it."""
        self._lost("No answer.")
        behind, self._next = self._next, None
        for waited_for in (waiting, behind):
            if waited_for is not None:
                tell(waited_for, None)

    def _lost(self, error: str) -> None:
        metrics.KEYS_UNREAD.inc()
        if not self._lost_before:
            log.warning("api_keys_unread", error=error)
        self._lost_before = True
        self._away_until = self._clock() + AGAIN_AFTER

    def _found(self) -> None:
        if self._lost_before:
            log.info("api_keys_read_again")
        self._lost_before = False
        self._away_until = float("-inf")

    def _take(self, changed: Sequence[KeyState], *, whole: bool) -> None:
        if whole:
            self._keys, self._revision = {}, 0
        for key in changed:
            self._revision = max(self._revision, key.revision)
            if key.revoked:
                self._keys.pop(key.sha256, None)
            else:
                self._keys[key.sha256] = key
