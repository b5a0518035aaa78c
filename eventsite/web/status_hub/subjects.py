"""What subjects want, where the database knows it, and what changes it while sockets are open."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable
from typing import Any

from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.status_hub import statements
from eventsite.web.status_hub.index import Index
from restapi.status_log import Following

__all__ = ["Subjects"]

AT_ONCE = 200  # subjects in one statement
TRUSTED = 30.0  # seconds: after a longer pause between two looks all subjects are read again


class Subjects:
    """Keeps the keys of the index. Without a `following` a subject is its own key.

    Reads follow each other, so that what is read later is also newer. A subject is in the index before
    its keys are read for the first time: what changes them from then on is seen by the looks, by
    transaction and snapshot.
    """

    def __init__(
        self, following: Following | None, index: Index[Any], sessions: SessionPool
    ) -> None:
        self._following = following
        self._index = index
        self._sessions = sessions
        self._waiting: set[Hashable] = set()
        self._reading = asyncio.Lock()
        self._snapshot = ""  # of the last look; "": there is none to go on from
        self._looked_at = 0.0

    async def load(self, subject: Hashable) -> None:
        """Its keys are in the index when this returns. Raises psycopg.Error."""
        if self._following is None:
            self._index.set_keys(subject, (subject,))
            return
        self._waiting.add(subject)
        async with self._reading:  # the first reads for all that have come meanwhile
            if subject in self._waiting:
                await self._read(self._waiting)

    async def follow_changes(self) -> None:
        """After the changes of a look were read and before they are handed out: so a change that was
        committed after a follow meets the follow. Raises psycopg.Error."""
        if self._following is None:
            return
        now = asyncio.get_running_loop().time()
        is_old = now - self._looked_at > TRUSTED
        async with self._sessions.turn() as session:
            if not self._snapshot or is_old:
                [(snapshot,)] = await session.rows(statements.SNAPSHOT)
                changed: Collection[Hashable] = list(self._index.subjects)
            else:
                statement = statements.changed(self._following, self._snapshot)
                [(snapshot, found)] = await session.rows(statement)
                changed = [subject for subject in found if subject in self._index]
        if changed:
            async with self._reading:
                await self._read(changed)
        self._snapshot, self._looked_at = snapshot, now

    async def _read(self, subjects: Collection[Hashable]) -> None:
        assert self._following is not None
        wanted = [str(subject) for subject in subjects]
        for begin in range(0, len(wanted), AT_ONCE):
            piece = wanted[begin : begin + AT_ONCE]
            async with self._sessions.turn() as session:
                rows = await session.rows(self._following.keys_of(piece))
            keys: dict[Hashable, list[Hashable]] = {subject: [] for subject in piece}
            for subject, key in rows:
                keys[subject].append(key)
            for subject in piece:
                self._index.set_keys(subject, keys[subject])
                self._waiting.discard(subject)
