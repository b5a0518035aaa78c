"""The seat of one socket: what is written at once, and what waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from eventsite.web.status_hub import seat
from eventsite.web.status_hub.outgoing import encoded
from eventsite.web.status_hub.pages import LoggedChange
from eventsite.web.status_hub.seat import QueuePlace, SendLine, Start

HEADER = 2  # bytes of a short frame


class Log:
    """The reader of a log that nobody resumes."""

    last = 0

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.live: list[QueuePlace] = []
        self.cut_off = 0

    async def missed(self, after: int) -> tuple[list[LoggedChange], int]:
        raise AssertionError("Nobody resumes.")

    def wants(self, place: QueuePlace, change: LoggedChange) -> bool:
        return True

    def set_live(self, place: QueuePlace) -> None:
        self.live.append(place)

    def forget(self, place: QueuePlace) -> None:
        self.live.remove(place)

    def note_cut_off(self) -> None:
        self.cut_off += 1

    def keep(self, task: asyncio.Task[None]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Client:
    """Notes what comes; what is sent to it waits until it reads, what is pushed needs room."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.pushed: list[int] = []
        self.closed: list[int] = []
        self.reads = asyncio.Event()
        self.has_room = False
        self.line = SendLine(self._send, self._push, self._close)

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self.reads.wait()
        self.heard.append(json.loads(message["text"])["seq"])

    def _push(self, frame: bytes) -> bool:
        if self.has_room:
            self.pushed.append(json.loads(frame[HEADER:])["seq"])
            self.heard.append(self.pushed[-1])
        return self.has_room

    async def _close(self, code: int, reason: str) -> None:
        self.closed.append(code)


async def settled(log: Log) -> None:
    while log.tasks:
        await asyncio.wait(log.tasks)


def test_what_there_is_room_for_takes_no_task() -> None:
    async def scenario() -> None:
        log, client = Log(), Client()
        client.has_room = True
        place = QueuePlace(log, "*", Start(None), client.line)
        place.begin()
        place.put(encoded({"seq": 1}))
        place.leave()
        place.put(encoded({"seq": 2}))
        assert (client.heard, log.tasks) == ([0, 1], set())

    asyncio.run(scenario())


def test_nothing_overtakes_what_waits() -> None:
    async def scenario() -> None:
        log, client = Log(), Client()
        place = QueuePlace(log, "*", Start(None), client.line)
        place.begin()
        place.put(encoded({"seq": 1}))
        await asyncio.sleep(0)  # the queue is empty but for one, which is on its way
        client.has_room = True
        place.put(encoded({"seq": 2}))
        client.reads.set()
        await settled(log)
        place.put(encoded({"seq": 3}))
        assert (client.heard, client.pushed) == ([0, 1, 2, 3], [3])

    asyncio.run(scenario())


def test_a_full_queue_is_the_end_and_nothing_is_pushed_behind_it() -> None:
    async def scenario() -> None:
        log, client = Log(), Client()
        place = QueuePlace(log, "*", Start(None), client.line)
        place.begin()
        for seq in range(seat.QUEUE + 1):
            place.put(encoded({"seq": seq}))
        client.has_room = True
        place.put(encoded({"seq": seat.QUEUE + 1}))
        client.reads.set()
        await settled(log)
        assert (client.closed, client.pushed, client.heard) == ([1013], [], [])
        assert (log.cut_off, log.live) == (1, [])

    asyncio.run(scenario())
