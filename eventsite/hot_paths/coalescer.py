"""Many requests, one statement: natural batching without a timer.

A command that comes while nothing is being done goes at once and alone; those that come while a
batch is under way wait for it and are the next batch, oldest first. So a single caller waits for
nobody, and under load the batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from eventsite.hot_paths import metrics
from outbox.services import NotStored, OutcomeUnknown

__all__ = ["Coalescer", "Refused"]

Command = TypeVar("Command")
Result = TypeVar("Result")


class Refused(Exception):
    """The command itself cannot be stored, and nothing of it is; the cause says why."""


class _Waiting(msgspec.Struct, Generic[Command, Result]):
    command: Command
    future: asyncio.Future[Result]
    expires: float  # on the loop's clock
    weight: int


class Coalescer(Generic[Command, Result]):
    """Submits commands to `perform` in batches, one batch at a time.

    `perform` takes commands and returns their results in the same order; it raises NotStored or
    OutcomeUnknown (everybody in the batch is told, nothing is tried again) or anything else before
    COMMIT (the batch is halved until only the culprit is left). At most `max_batch` commands in a
    batch, of `max_weight` together unless the first is heavier, `max_waiting` in the queue, each at
    most `patience` seconds in it, even while a batch hangs. Belongs to one event loop.
    """

    def __init__(
        self,
        perform: Callable[[Sequence[Command]], Awaitable[Sequence[Result]]],
        *,
        name: str,
        max_batch: int = 256,
        max_weight: int = 131_072,
        max_waiting: int = 16_384,
        patience: float = 10.0,
        last_patience: float = 1.5,
    ) -> None:
        self._perform = perform
        self._max_batch = max_batch
        self._max_weight = max_weight
        self._max_waiting = max_waiting
        self._patience = patience
        self._last_patience = last_patience
        self._waiting: deque[_Waiting[Command, Result]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None  # for the oldest that waits
        self._closed = False
        self._batch = metrics.BATCH.labels(name)

    def submit(self, command: Command, weight: int = 0) -> asyncio.Future[Result]:
        """Will have the command's result, after COMMIT. `weight`: what it costs the loop, in bytes.

        Raises NotStored when the queue is full or the process is stopping; the future NotStored
        (also when the wait was too long), OutcomeUnknown or Refused. A caller that goes away
        changes nothing for the others, and its command may still be stored.
        """
        if self._closed:
            raise NotStored("This process is stopping.")
        if len(self._waiting) >= self._max_waiting:
            raise NotStored("Too many requests are waiting.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        expires = loop.time() + self._patience
        self._waiting.append(_Waiting(command, future, expires, weight))
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        if self._alarm is None:
            self._alarm = loop.call_at(expires, self._expire)
        return future

    async def close(self) -> None:
        """Store what is waiting, then take no more. Whom that takes longer than `last_patience` is
        told that it is not stored, or that nobody knows."""
        self._closed = True
        if self._flusher is not None:
            _, hanging = await asyncio.wait([self._flusher], timeout=self._last_patience)
            for flusher in hanging:
                flusher.cancel()
                await asyncio.wait(hanging, timeout=self._last_patience)
            while self._waiting:
                _tell(self._waiting.popleft().future, NotStored("This process is stopping."))
        if self._alarm is not None:
            self._alarm.cancel()

    async def _flush(self) -> None:
        try:
            while batch := self._next_batch():
                await self._flush_batch(batch)
        finally:
            self._flusher = None

    async def _flush_batch(self, batch: list[_Waiting[Command, Result]]) -> None:
        commands = [waiting.command for waiting in batch]
        self._batch.observe(len(commands))
        try:
            outcomes = await self._outcomes(commands)
        except BaseException:  # the process comes to its end in the middle of it
            outcomes = [OutcomeUnknown("The process ended while storing.")] * len(batch)
            raise
        finally:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _tell(waiting.future, outcome)

    def _next_batch(self) -> list[_Waiting[Command, Result]]:
        self._drop_expired()
        batch: list[_Waiting[Command, Result]] = []
        weight = 0
        while self._waiting and len(batch) < self._max_batch:
            weight += self._waiting[0].weight
            if batch and weight > self._max_weight:
                break
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                batch.append(waiting)
        return batch

    def _expire(self) -> None:
        """The alarm: who has waited too long is told so, though a batch may still hang."""
        self._drop_expired()
        self._alarm = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_at(self._waiting[0].expires, self._expire)

    def _drop_expired(self) -> None:
        """All wait equally long at most, so the oldest is the first to give up."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0].expires <= now:
            _tell(self._waiting.popleft().future, NotStored("The request waited too long."))

    async def _outcomes(self, commands: Sequence[Command]) -> list[Result | Exception]:
        try:
            results = list(await self._perform(commands))
        except (NotStored, OutcomeUnknown) as error:
            return [error] * len(commands)
        except Exception as error:  # noqa: BLE001  (whoever it concerns is told)
            if len(commands) == 1 or self._closed:
                refused = Refused()
                refused.__cause__ = error
                return [refused] * len(commands)
            half = len(commands) // 2
            first = await self._outcomes(commands[:half])
            return [*first, *await self._outcomes(commands[half:])]
        if len(results) != len(commands):
            lost = OutcomeUnknown(f"{len(commands)} commands came back as {len(results)} results.")
            return [lost] * len(commands)
        return [*results]


def _tell(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    if future.done():  # the caller has gone away
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
