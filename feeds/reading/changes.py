"""What has committed that a cached feed may not show, as far as this process knows of it
(docs/feeds.md#reading).

"Since" goes by transactions and snapshots, not by ids or times: a row with a low id may commit late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
from django.conf import settings

from feeds.cache import Kept
from feeds.models import ChangeKind
from outbox.database.arrays import array_literal
from outbox.database.round_trips import Row, Statement

__all__ = ["CHANGES", "MARGIN_SECONDS", "Changes", "DatabaseSnapshot", "snapshot_of"]

MARGIN_SECONDS = 60  # changes are remembered for longer than feeds are kept
AT_ONCE = 20_000  # changes that are read in one go; of the older ones nothing is known then


class DatabaseSnapshot(NamedTuple):
    """Which transactions a statement sees: all below xmin, and below xmax all but those in `running`."""

    xmin: int
    xmax: int
    running: frozenset[int]

    def shows(self, xid: int) -> bool:
        """Whether it sees what this transaction has written, if it has committed."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def shows_more_than(self, other: DatabaseSnapshot) -> bool:
        """Whether it may see a transaction that the other does not."""
        return self.xmax > other.xmax or any(map(self.shows, other.running))


@lru_cache(maxsize=1024)
def snapshot_of(text: str) -> DatabaseSnapshot:
    """As PostgreSQL writes it."""
    xmin, xmax, running = text.split(":")
    return DatabaseSnapshot(
        int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(","))))
    )


class _Change(msgspec.Struct, array_like=True):
    xid: str
    kind: str
    follower: str | None
    post: int | None


_decode = msgspec.json.Decoder(list[_Change]).decode

_COLUMNS = "xid, kind, follower_id, post_id"
_CHANGES = """
    SELECT pg_current_snapshot()::text, (
        SELECT json_agg(json_build_array(xid::text, kind, follower_id, post_id))::text FROM ({}) AS news
    )
"""
# Never more than so many, whatever an import or a long silence has left.
_SINCE = _CHANGES.format(f"""
    (SELECT {_COLUMNS} FROM feed_changes WHERE xid >= %s::xid8 ORDER BY xid DESC LIMIT %s)
    UNION ALL
    (SELECT {_COLUMNS} FROM feed_changes WHERE xid = ANY(%s::xid8[]) ORDER BY xid DESC LIMIT %s)
    UNION ALL
    SELECT {_COLUMNS} FROM feed_changes WHERE xid > %s::xid8 AND kind = 'pruned'
""")
_NEWEST = _CHANGES.format(f"SELECT {_COLUMNS} FROM feed_changes ORDER BY xid DESC LIMIT %s")


class Changes:
    """One for a process; any thread may ask. `statement` goes to PostgreSQL, `learn` takes its rows."""

    def __init__(self) -> None:
        self.at_once, self.margin_seconds = AT_ONCE, MARGIN_SECONDS
        self._guard = threading.Lock()
        # Every change that it shows is remembered, or too old.
        self._known: DatabaseSnapshot | None = None
        self._horizon = 0  # every change from this transaction on is remembered
        self._remembered: deque[tuple[float, int, _Change]] = deque()  # since when (monotonic)
        self.deleted: set[int] = set()  # posts
        self._of_users: dict[str, list[int]] = {}  # transactions with follows and unfollows of each
        self._modes: list[int] = []  # transactions that changed how an author is read

    def statement(self) -> Statement:
        """What has committed since it was asked last; the first time, what is to be known at all."""
        known = self._known
        if known is None:
            return _NEWEST, (self.at_once,)
        running = array_literal(known.running)
        return _SINCE, (str(known.xmax), self.at_once, running, self.at_once, str(known.xmin))

    def learn(self, rows: Sequence[Row]) -> None:
        """Take the statement's one row. Learning something twice does no harm."""
        [(text, text_of_changes)] = rows
        now = snapshot_of(text)
        news = _decode(text_of_changes) if text_of_changes else []
        if not news and self._known == now:
            return
        with self._guard:
            if len(news) >= self.at_once:
                # What did not fit is not newer than so many that did, and may be of the same transaction.
                newest = sorted((int(change.xid) for change in news), reverse=True)
                self._horizon = max(self._horizon, newest[self.at_once - 1] + 1)
            for change in news:
                self._remember(int(change.xid), change)
            if self._known is None or self._known.xmax <= now.xmax:
                self._known = now
            self._forget(now.xmin)

    def believes(self, kept: Kept, user: str) -> bool:
        """Whether a cached feed is right but for `deleted`: it is not older than what is remembered,
        and has seen each follow and unfollow of its user, and each change of a mode. To be asked
        once `deleted` has been looked at."""
        # Another thread may forget meanwhile: it raises the horizon first, so that is looked at last.
        mine, modes = tuple(self._of_users.get(user, ())), tuple(self._modes)
        if mine or modes:
            filled = snapshot_of(kept.snapshot)
            if not all(map(filled.shows, modes)):
                return False
            if not all(xid < kept.added and filled.shows(xid) for xid in mine):
                return False
        return kept.xmin >= self._horizon and kept.added >= self._horizon

    def _remember(self, xid: int, change: _Change) -> None:
        if change.kind == ChangeKind.PRUNED:
            # We may have missed some below it.
            self._horizon = max(self._horizon, xid)
            return
        self._remembered.append((time.monotonic(), xid, change))
        if change.kind == ChangeKind.DELETE and change.post is not None:
            self.deleted.add(change.post)
        elif change.kind == ChangeKind.MODE:
            _add(self._modes, xid)
        elif change.follower is not None:
            _add(self._of_users.setdefault(change.follower, []), xid)

    def _forget(self, oldest_running: int) -> None:
        """What no cached feed can miss any more: a fill after it has seen it. A transaction that runs
        for long keeps it, because fills name that one as the oldest that they may not have seen."""
        until = time.monotonic() - settings.FEED_CACHE_SECONDS - self.margin_seconds
        while self._remembered:
            since, xid, change = self._remembered[0]
            if since > until or xid >= oldest_running:
                return
            self._remembered.popleft()
            self._horizon = max(self._horizon, xid + 1)
            if change.kind == ChangeKind.DELETE and change.post is not None:
                self.deleted.discard(change.post)
            elif change.kind == ChangeKind.MODE:
                _remove(self._modes, xid)
            elif (mine := self._of_users.get(change.follower or "")) is not None:
                _remove(mine, xid)
                if not mine:
                    del self._of_users[change.follower or ""]


def _add(xids: list[int], xid: int) -> None:
    if not xids or xids[-1] != xid:  # thousands of follows may come in one transaction
        xids.append(xid)


def _remove(xids: list[int], xid: int) -> None:
    if xid in xids:
        xids.remove(xid)


CHANGES = Changes()  # of this process
