"""Many requests, one statement: natural batching without a timer. A single caller waits for nobody, and
under load the batches grow by themselves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Generic, TypeVar

import msgspec

from eventsite.web.futures import tell
from eventsite.web.hot_paths import metrics
from outbox.database import patience
from outbox.database.unit_of_work import NotStored, OutcomeUnknown, TurnedAway

__all__ = ["STOPPING", "BatchRefused", "Coalescer", "Waiting"]

Command = TypeVar("Command")
Result = TypeVar("Result")


MEASURED_EVERY = 1.0  # seconds
STOPPING = "This process is stopping"
_AT_ONCE = nullcontext()
LEAST_SECONDS = 1.5  # that a batch may wait for the database, however long its oldest has waited


class BatchRefused(Exception):
    """The command itself cannot be stored, and nothing of it is; the cause says why."""


class Waiting(msgspec.Struct, Generic[Command, Result]):
    """A command in the queue, or under way: until it has `begun` nothing of it can be stored."""

    command: Command
    future: asyncio.Future[Result]
    expires: float  # on the loop's clock
    weight: int
    begun: bool = False


class Coalescer(Generic[Command, Result]):
    """Submits commands to `perform` in batches, one batch at a time.

    `perform` takes commands and returns their results in the same order; it raises
    OutcomeUnknown, or NotStored for a database that is unavailable (the whole batch gets this
    answer, nothing is tried again), or anything else before COMMIT, NotStored for what the
    server has refused included (the batch is halved until only the culprit is left). A batch
    has at most `max_batch` commands, of `max_weight` together unless the first is heavier. The
    queue has at most `max_waiting`, each for at most `patience` seconds, even while a batch
    hangs. `turn` is held around each batch, which is put together once it is held.
    Belongs to one event loop."""

    def __init__(
        self,
        perform: Callable[[Sequence[Command]], Awaitable[Sequence[Result]]],
        *,
        name: str,
        turn: AbstractAsyncContextManager[object] = _AT_ONCE,
        max_batch: int = 256,
        max_weight: int = 131_072,
        max_waiting: int = 16_384,
        patience: float = 8.0,
        last_patience: float = 1.5,
    ) -> None:
        self._perform = perform
        self._turn = turn
        self._max_batch = max_batch
        self._max_weight = max_weight
        self._max_waiting = max_waiting
        self._patience = patience
        self._last_patience = last_patience
        self._waiting: deque[Waiting[Command, Result]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None  # for the oldest that waits
        self._closed = False
        self._begun: float | None = None  # when the oldest that is under way was handed in
        self._measuring: asyncio.TimerHandle | None = None
        self._batch = metrics.BATCH.labels(name)
        self._length, self._oldest = metrics.WAITING.labels(name), metrics.OLDEST.labels(name)

    def submit(self, command: Command, weight: int = 0) -> Waiting[Command, Result]:
        """Its future will have the command's result, after COMMIT. `weight`: what it costs the loop,
        in the unit of `max_weight`.

        Raises NotStored when the queue is full or the process is stopping; the future NotStored
        (also when the wait was too long), OutcomeUnknown or Refused. A caller that goes away
        changes nothing for the others, and its command may still be stored if it has begun.
        """
        if self._closed:
            raise TurnedAway(STOPPING)
        if len(self._waiting) >= self._max_waiting:
            raise TurnedAway("Too many requests are waiting")
        loop = asyncio.get_running_loop()
        expires = loop.time() + self._patience
        waiting: Waiting[Command, Result] = Waiting(command, loop.create_future(), expires, weight)
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        if self._measuring is None:
            self._measuring = loop.call_later(MEASURED_EVERY, self._measure)
        if self._alarm is None:
            self._alarm = loop.call_at(expires, self._expire)
        return waiting

    async def close(self) -> None:
        """Store what is waiting, then take no more. A command that waits longer than
        `last_patience` fails as not stored or with an unknown outcome."""
        self._closed = True
        if self._flusher is not None:
            _, hanging = await asyncio.wait([self._flusher], timeout=self._last_patience)
            for flusher in hanging:
                flusher.cancel()
                await asyncio.wait(hanging, timeout=self._last_patience)
            while self._waiting:
                tell(self._waiting.popleft().future, TurnedAway(STOPPING))
        for timer in (self._alarm, self._measuring):
            if timer is not None:
                timer.cancel()
        self._length.set(0)
        self._oldest.set(0)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                async with self._turn:
                    if batch := self._next_batch():
                        self._begun = batch[0].expires - self._patience
                        await self._flush_batch(batch)
                        self._begun = None
        finally:
            self._flusher = self._begun = None

    async def _flush_batch(self, batch: list[Waiting[Command, Result]]) -> None:
        commands = [waiting.command for waiting in batch]
        self._batch.observe(len(commands))
        left = batch[0].expires - asyncio.get_running_loop().time()
        try:
            with patience.within(max(left, LEAST_SECONDS)):
                outcomes = await self._outcomes(commands)
        except BaseException:  # the process comes to its end in the middle of it
            outcomes = [OutcomeUnknown("The process ended while storing.")] * len(batch)
            raise
        finally:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                tell(waiting.future, outcome)

    def _next_batch(self) -> list[Waiting[Command, Result]]:
        self._drop_expired()
        batch: list[Waiting[Command, Result]] = []
        weight = 0
        while self._waiting and len(batch) < self._max_batch:
            weight += self._waiting[0].weight
            if batch and weight > self._max_weight:
                break
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.begun = True
                batch.append(waiting)
        return batch

    def _expire(self) -> None:
        """The alarm: a request that has waited too long is answered, though a batch may still hang."""
        self._drop_expired()
        self._alarm = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_at(self._waiting[0].expires, self._expire)

    def _measure(self) -> None:
        """Every second from the first command on, until there is none."""
        loop = asyncio.get_running_loop()
        self._length.set(len(self._waiting))
        self._oldest.set(self._age_of_oldest())
        busy = self._flusher is not None
        self._measuring = loop.call_later(MEASURED_EVERY, self._measure) if busy else None

    def _age_of_oldest(self) -> float:
        """Age in seconds of the oldest command under way, or of the first in the queue while
        there is no turn."""
        begun = self._begun
        if begun is None and self._waiting:
            begun = self._waiting[0].expires - self._patience
        return 0.0 if begun is None else asyncio.get_running_loop().time() - begun

    def _drop_expired(self) -> None:
        """All wait equally long at most, so the oldest is the first to give up."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0].expires <= now:
            tell(
                self._waiting.popleft().future,
                TurnedAway("The request waited too long"),
            )

    async def _outcomes(self, commands: Sequence[Command]) -> list[Result | Exception]:
        try:
            results = list(await self._perform(commands))
        except OutcomeUnknown as error:
            return [error] * len(commands)
        except Exception as error:  # noqa: BLE001  (the requests of the batch get it)
            is_away = isinstance(error, NotStored) and not error.refused
            if is_away or len(commands) == 1:
                return [error if isinstance(error, NotStored) else _refused(error)] * len(commands)
            half = len(commands) // 2
            first = await self._outcomes(commands[:half])
            return [*first, *await self._outcomes(commands[half:])]
        if len(results) != len(commands):
            lost = OutcomeUnknown(f"{len(commands)} commands came back as {len(results)} results.")
            return [lost] * len(commands)
        return [*results]


def _refused(error: Exception) -> BatchRefused:
    refused = BatchRefused()
    refused.__cause__ = error
    return refused
