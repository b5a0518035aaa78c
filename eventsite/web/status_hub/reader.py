"""The reader of one status log: numbers what is committed, and hands it to the sockets that want it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from datetime import datetime

import msgspec
import psycopg
import structlog

from eventsite.web.futures import tell
from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.status_hub import metrics, statements
from eventsite.web.status_hub.floor import Floor
from eventsite.web.status_hub.index import Index
from eventsite.web.status_hub.outgoing import encoded
from eventsite.web.status_hub.pages import LoggedChange, Pages
from eventsite.web.status_hub.seat import QueuePlace, SendLine, Start
from eventsite.web.status_hub.subjects import Subjects
from outbox.database.round_trips import Row
from restapi.status_log import StatusLog

__all__ = ["BUSY", "LogReader"]

# Seconds between two looks. A nudge shortens them; Redis may lose it.
TIMER = 0.25
IDLE_TIMER = 1.0  # while this process has no socket of the log: it only numbers
SPACING = 0.02
BUSY = 0.02  # another process numbers at this moment, perhaps without what was committed last
FAILED = 0.5
GIVE_UP = 5.0  # that a handshake waits for a look
KEPT_SECONDS = (
    1.0  # for which it is believed what the oldest number is: so often the purge does not come
)
PUTS = 1000  # handed out before others have their turn on the loop

log = structlog.get_logger("status_hub")


class _Kept(msgspec.Struct, frozen=True):
    """The numbers that a log held at a moment of the loop's clock."""

    oldest: int = 1
    newest: int = -1
    at: float = 0.0

    def has(self, since: int, now: float) -> bool:
        """Whether that is so recent that everything behind `since` is still there."""
        return now - self.at < KEPT_SECONDS and self.oldest - 1 <= since <= self.newest


class LogReader:
    """Belongs to one event loop. `last`: everything up to it has been handed to the sockets that are
    live. It looks at the log when it is nudged, and on a timer."""

    def __init__(self, status_log: StatusLog, sessions: SessionPool) -> None:
        self.last = 0
        self._log = status_log
        self._sessions = sessions
        self._index: Index[QueuePlace] = Index()
        self._subjects = Subjects(status_log.following, self._index, sessions)
        self._pages = Pages(self._read)
        self._floor = Floor(status_log)
        self._seats = 0
        self._began = False  # whether `last` is known
        self._failed = False
        self._wake = asyncio.Event()
        self._kept = _Kept()
        self._keeping = asyncio.Lock()
        self._asked: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        name = status_log.name
        self._clients = metrics.CLIENTS.labels(name)
        self._cut_off = metrics.CUT_OFF.labels(name)
        self._gaps = metrics.GAPS.labels(name)
        self._read_count = metrics.READ.labels(name)
        self._unread = metrics.UNREAD.labels(name)
        self._numbered = metrics.NUMBERED.labels(name)
        self._lag = metrics.LAG.labels(name)

    # For the hub

    @property
    def has_seats(self) -> bool:
        return self._seats > 0

    def nudge(self) -> None:
        """There may be more to read. Where no socket waits for it, the timer will do."""
        if self._seats:
            self._wake.set()

    async def enter(self, subject: Hashable, *, since: int | None, line: SendLine) -> QueuePlace:
        """Raises psycopg.Error or TimeoutError if the log cannot be read now."""
        self._index.enter(subject)
        self._seats += 1
        self._clients.inc()
        place = None
        try:
            async with asyncio.timeout(GIVE_UP):
                if not self._began or self._seats == 1:
                    await self._look_again()  # the last look may be a second old
                await self._subjects.load(subject)
                start = await self._start_of(since)
                while start.after is not None and start.after > self.last:
                    await self._look_again()  # another process was ahead of this one
            place = QueuePlace(self, subject, start, line)
        finally:
            if place is None:
                self._seats -= 1
                self._clients.dec()
                self._index.leave(subject)
        return place

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._wake.clear()
            asked, self._asked = self._asked, []
            try:
                pause = await self._look()
            except Exception as error:  # noqa: BLE001  (whatever it is, the next look may do better)
                self._note_failure(error)
                for future in asked:
                    tell(future, error)
                await asyncio.sleep(FAILED)
                continue
            self._note_success()
            for future in asked:
                tell(future, None)
            await self._pause(began + SPACING - loop.time(), pause)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    # For places

    async def missed(self, after: int) -> tuple[Sequence[LoggedChange], int]:
        return await self._pages.after(after, self.last)

    def wants(self, place: QueuePlace, change: LoggedChange) -> bool:
        return self._index.wants(place.subject, change.keys)

    def set_live(self, place: QueuePlace) -> None:
        self._index.set_live(place.subject, place)

    def forget(self, place: QueuePlace) -> None:
        self._seats -= 1
        self._clients.dec()
        self._index.leave(place.subject, place)

    def note_cut_off(self) -> None:
        self._cut_off.inc()

    def keep(self, task: asyncio.Task[None]) -> None:
        """The loop itself keeps no hard reference to a task."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Looks

    async def _look(self) -> float:
        """Number what is committed, read it and hand it out; seconds until the next look."""
        reads = self._began and self._seats > 0
        now = asyncio.get_running_loop().time()
        questions = self._floor.questions(now)
        asked = [
            *statements.number(self._log, self._floor.begin(now)),
            statements.newest(self._log),
            *([statements.rows_between(self._log, self.last, 2**63 - 1)] if reads else []),
            *questions,
        ]
        async with self._sessions.turn() as session:
            answers = await session.trip(asked)
        mine = answers[0][0][0] == "true"
        numbered, newest = answers[1][0][0], answers[2][0][0]
        rows = answers[3] if reads else ()
        is_full = numbered == statements.NUMBERED_AT_ONCE
        self._numbered.inc(numbered)
        self._floor.note_look(left_nothing=mine and not is_full)
        if questions:
            [(last_id,)], writers = answers[-2:]
            self._floor.note_answers(last_id, [writer for (writer,) in writers])
        if self._index:
            await self._subjects.follow_changes()
        if self._began and newest < self.last:
            self._start_anew(newest)
        elif not reads:
            self._pass_by(newest)
        else:
            await self._hand_out(rows)
        if is_full or len(rows) == statements.READ_AT_ONCE:
            return 0.0
        if not mine:
            return BUSY
        return TIMER if self._seats else IDLE_TIMER

    def _pass_by(self, newest: int) -> None:
        """There is no socket to send it to. A socket that has entered meanwhile begins at the
        last number that was read."""
        if not self._began or not self._seats:
            if newest != self.last:
                self._pages.skip()
            self.last = newest
            self._began = True

    async def _hand_out(self, rows: Sequence[Row]) -> None:
        if rows and rows[0][0] > self.last + 1:
            await self._check_for_gap()
        puts = 0
        for seq, _, *row in rows:
            change = LoggedChange(self._log, seq, tuple(row))
            places = self._index.seats(change.keys)
            for place in places:
                place.put(change.outgoing)
            self._pages.note(change, self.last)
            self.last = seq
            puts += 1 + len(places)
            if puts > PUTS:
                puts = 0
                await asyncio.sleep(0)  # their queues are emptied, before they are full
        self._note_lag(rows)

    async def _check_for_gap(self) -> None:
        """Numbers are missing. After a standstill of a day they are those that were purged; rows
        that somebody has deleted are none."""
        oldest = await self._ask_kept()
        if oldest > self.last + 1:
            self._pages.skip()
            self._tell_gap(oldest)

    def _start_anew(self, newest: int) -> None:
        """The log went back: the database was restored, or the table emptied."""
        log.warning("status_log_went_back", log=self._log.name, newest=newest, last=self.last)
        self._pages.forget()
        self._floor.forget()
        self._kept = _Kept()
        self.last = newest
        self._tell_gap(newest + 1)

    def _tell_gap(self, oldest: int) -> None:
        for place in list(self._index.live()):
            self._gaps.inc()
            place.put(encoded({"type": "gap", "oldest": oldest}))

    async def _start_of(self, since: int | None) -> Start:
        if since is None:
            return Start(None)
        async with self._keeping:  # the first asks for all that have come meanwhile
            if not self._kept.has(since, asyncio.get_running_loop().time()):
                await self._ask_kept()
        kept = self._kept
        if kept.oldest - 1 <= since <= kept.newest:
            return Start(since)
        self._gaps.inc()
        return Start(kept.oldest - 1, kept.oldest)

    async def _ask_kept(self) -> int:
        """Which numbers are kept now; returns the lowest."""
        at = asyncio.get_running_loop().time()
        async with self._sessions.turn() as session:
            [(oldest, newest)] = await session.rows(statements.oldest(self._log))
        self._kept = _Kept(oldest, newest, at)
        return self._kept.oldest

    async def _read(self, after: int, last: int) -> Sequence[LoggedChange]:
        statement = statements.rows_between(self._log, after, last)
        async with self._sessions.turn() as session:
            rows = await session.rows(statement)
        return [LoggedChange(self._log, seq, tuple(row)) for seq, _, *row in rows]

    async def _look_again(self) -> None:
        """The end of a look that begins after now. Raises what it failed with."""
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._wake.set()
        await asked

    async def _pause(self, least: float, most: float) -> None:
        if least > 0:
            await asyncio.sleep(least)
        if most > 0 and not self._wake.is_set():
            timer = asyncio.get_running_loop().call_later(most, self._wake.set)
            await self._wake.wait()
            timer.cancel()

    # What is said of it

    def _note_lag(self, rows: Sequence[Row]) -> None:
        self._read_count.inc(len(rows))
        now = time.time()
        for row in rows[-10:]:  # as many as say how it goes
            at: datetime = row[1]
            self._lag.observe(max(0.0, now - at.timestamp()))

    def _note_failure(self, error: Exception) -> None:
        self._unread.inc()
        if not self._failed:
            log.warning("status_log_unread", log=self._log.name, error=str(error))
            if not isinstance(error, psycopg.Error | TimeoutError):
                log.exception("unhandled_error", exc_info=error)
        self._failed = True

    def _note_success(self) -> None:
        if self._failed:
            log.info("status_log_read_again", log=self._log.name)
        self._failed = False
