"""What clients have missed, read from the log once for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence

from eventsite.web.status_hub.outgoing import Outgoing, encoded
from outbox.database.round_trips import Row
from restapi.status_log import StatusLog

__all__ = ["PAGE", "LoggedChange", "Pages"]

PAGE = 500  # numbers
KEPT = 16  # pages in memory
RECENT = 2000  # changes that the reader has handed out last


class LoggedChange:
    """One numbered row. Its message is made when somebody wants it, once for all."""

    __slots__ = ("_log", "_outgoing", "_row", "keys", "seq")

    def __init__(self, log: StatusLog, seq: int, row: Row) -> None:
        self.seq = seq
        self.keys: Sequence[Hashable] = log.keys(row)
        self._log = log
        self._row = row
        self._outgoing: Outgoing | None = None

    @property
    def outgoing(self) -> Outgoing:
        if self._outgoing is None:
            self._outgoing = encoded(self._log.message(self.seq, self._row))
        return self._outgoing


class Pages:
    """A page is PAGE numbers, counted from 1, whoever asks: clients that come back after a deploy with
    numbers close to each other share the reading. The end of the log is what the reader has handed
    out, mostly in memory.

    read  changes with numbers above the first, up to the second one
    """

    def __init__(self, read: Callable[[int, int], Awaitable[Sequence[LoggedChange]]]) -> None:
        self._read = read
        self._whole: dict[int, Sequence[LoggedChange]] = {}
        self._under_way: dict[tuple[int, int], asyncio.Task[Sequence[LoggedChange]]] = {}
        self._recent: deque[LoggedChange] = deque(maxlen=RECENT)
        self._recent_after: int | None = None  # all above it, up to the last one, are in _recent

    def note(self, change: LoggedChange, after: int) -> None:
        """The reader hands it out; `after` is what it had handed out before."""
        if self._recent_after is None:
            self._recent_after = after
        if len(self._recent) == RECENT:
            self._recent_after = self._recent[0].seq
        self._recent.append(change)

    def skip(self) -> None:
        """The reader passes by changes without handing them out."""
        self._recent.clear()
        self._recent_after = None

    def forget(self) -> None:
        """The log is another one."""
        self._whole.clear()
        self.skip()

    async def after(self, after: int, last: int) -> tuple[Sequence[LoggedChange], int]:
        """Changes above `after`, in order, and up to which number these are all; at most `last`.
        Raises psycopg.Error."""
        if self._recent_after is not None and self._recent_after <= after:
            found = [change for change in self._recent if change.seq > after][:PAGE]
            return found, found[-1].seq if len(found) == PAGE else last
        page = after // PAGE
        end = min((page + 1) * PAGE, last)
        changes = await self._page(page, end)
        return [change for change in changes if after < change.seq], end

    async def _page(self, page: int, end: int) -> Sequence[LoggedChange]:
        whole = self._whole.pop(page, None)
        if whole is None:
            asked = (page, end)
            task = self._under_way.get(asked)
            if task is None:
                reading = self._read(page * PAGE, end)
                task = asyncio.ensure_future(reading)
                self._under_way[asked] = task
                task.add_done_callback(lambda _: self._under_way.pop(asked))
            changes = await asyncio.shield(task)  # who hangs up does not end it for the others
            if end < (page + 1) * PAGE:
                return changes
            whole = changes
        self._whole[page] = whole  # behind the others: it was used last
        if len(self._whole) > KEPT:
            del self._whole[next(iter(self._whole))]
        return whole
